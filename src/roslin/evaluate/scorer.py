"""Who scores questions: a model of Roslin's, or any other that can say how likely a text is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from roslin.answer import Roslin
from roslin.engine import ScoreRow, score_groups
from roslin.evaluate.harness_pairs import check_rows, fitting
from roslin.evaluate.harness_text import HarnessText
from roslin.evaluate.question import Question
from roslin.evaluate.scores import Profile
from roslin.evaluate.tasks import as_instruction

TOKENS_PER_PASS = {"cpu": 1536, "cuda": 16384}
"""On a CPU, what stays in its caches: with the small base, 512 to 2,048 tokens take the least time, 4,096 some more."""


@dataclass(frozen=True)
class ChoiceScore:
    """How likely a model finds the continuation of a choice."""

    log_likelihood: float
    """In nats, summed over the continuation's tokens."""
    tokens: int
    """Of the continuation."""
    truncated: bool = False
    """Whether the context's beginning was cut off, because the model has too few positions for it."""


class Scorer(Protocol):
    """A model as a benchmark sees it."""

    @property
    def name(self) -> str:
        """What the model is called in a table."""
        ...

    @property
    def dtype(self) -> str:
        """The dtype of its arithmetic, such as float32."""
        ...

    @property
    def profile(self) -> Profile:
        """How questions are put to it."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash of weights and tokenizer: equal only for models that are the same."""
        ...

    def score(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[ChoiceScore]]]:
        """Each question's number and the scores of its choices, in an order of the scorer's own, batch by batch."""
        ...


class RoslinScorer:
    """A model of Roslin's, which reads once what the choices of a question share."""

    def __init__(
        self,
        model: Roslin,
        *,
        name: str,
        fingerprint: str,
        profile: Profile = "raw",
        tokens_per_pass: int | None = None,
    ) -> None:
        """Ask `model` in `profile`; a pass reads at most `tokens_per_pass` tokens, which decides speed and memory."""
        self.name, self.fingerprint, self.profile = name, fingerprint, profile
        self.dtype = str(model.dtype).removeprefix("torch.")
        self._model = model
        self._tokens_per_pass = tokens_per_pass or TOKENS_PER_PASS[model.decoder.device.type]

    def score(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[ChoiceScore]]]:
        """Each question's number and its scores, longest questions first.

        Raises InputError for a question that cannot be asked, before any work, and MachineError for numbers that are
        none.
        """
        rows = iter(self._raw_rows(pairs(questions)) if self.profile == "raw" else self._instruct_rows(questions))
        whole = [[next(rows) for _ in question.choices] for question in questions]
        positions = self._model.decoder.config.positions
        groups = [
            [fitting(row, positions, f"question {number}") for row in found] for number, found in enumerate(whole, 1)
        ]
        for number, scores in score_groups(self._model.decoder, groups, self._tokens_per_pass):
            yield (
                number,
                [
                    ChoiceScore(score.log_likelihood, score.tokens, truncated=row.read > positions)
                    for score, row in zip(scores, whole[number], strict=True)
                ],
            )

    def _raw_rows(self, asked: Sequence[tuple[str, str]]) -> list[ScoreRow]:
        """Contexts and continuations as the LM Evaluation Harness encodes them."""
        return HarnessText(self._model.tokenizer, add_bos_token=None, prefix_token_id=None).encoder.rows(asked)

    def _instruct_rows(self, questions: Sequence[Question]) -> list[ScoreRow]:
        """Each context as an instruction in the model's own prompt, the continuation as the beginning of the answer."""
        asked = pairs([as_instruction(question) for question in questions])
        contexts = dict.fromkeys(context for context, _ in asked)
        prompts = {context: self._model.prompts.ids(context, None) for context in contexts}
        answers = self._model.tokenizer.encode_all([continuation for _, continuation in asked])
        return answering([prompts[context] for context, _ in asked], answers, asked)


def pairs(questions: Sequence[Question]) -> list[tuple[str, str]]:
    """Every choice's context and continuation."""
    return [(choice.context, choice.continuation) for question in questions for choice in question.choices]


def answering(
    prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], asked: Sequence[tuple[str, str]]
) -> list[ScoreRow]:
    """Each answer's ids behind its prompt's. Raises InputError for answers without ids, by the texts `asked`."""
    rows = [ScoreRow([*prompt, *ids], len(prompt)) for prompt, ids in zip(prompts, answers, strict=True)]
    check_rows(asked, rows)
    return rows
