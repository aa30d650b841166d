"""Who scores questions: a model of Roslin's, or any other that can say how likely a text is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from roslin.answer import Roslin
from roslin.engine import ScoreRow, score_groups
from roslin.evaluate.harness_pairs import fitting
from roslin.evaluate.harness_text import HarnessText
from roslin.evaluate.question import Choice, Question
from roslin.evaluate.scores import Profile

TOKENS_PER_PASS = {"cpu": 1024, "cuda": 16384}
"""On a CPU, what stays in its caches: with the small base, 1,024 tokens take 5 to 15 % less time than 4,096."""


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
        self.dtype = str(model.decoder.dtype).removeprefix("torch.")
        self._model = model
        self._tokens_per_pass = tokens_per_pass or TOKENS_PER_PASS[model.decoder.device.type]

    def score(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[ChoiceScore]]]:
        """Each question's number and its scores, longest questions first.

        Raises InputError for a question that cannot be asked, before any work, and MachineError for numbers that are
        none.
        """
        choices = [choice for question in questions for choice in question.choices]
        rows = iter(self._raw_rows(choices) if self.profile == "raw" else self._instruct_rows(choices))
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

    def _raw_rows(self, choices: Sequence[Choice]) -> list[ScoreRow]:
        """Contexts and continuations as the LM Evaluation Harness encodes them."""
        text = HarnessText(self._model.tokenizer, add_bos_token=None, prefix_token_id=None)
        return text.encoder.rows([(choice.context, choice.continuation) for choice in choices])

    def _instruct_rows(self, choices: Sequence[Choice]) -> list[ScoreRow]:
        """Each context as an instruction in the model's own prompt, the continuation as the beginning of the answer."""
        contexts = dict.fromkeys(choice.context for choice in choices)
        prompts = {context: self._model.prompts.ids(context, None) for context in contexts}
        answers = self._model.tokenizer.encode_all([choice.continuation.lstrip() for choice in choices])
        befores = [prompts[choice.context] for choice in choices]
        return [ScoreRow([*before, *ids], len(before)) for before, ids in zip(befores, answers, strict=True)]
