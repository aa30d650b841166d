"""Who scores questions: a model of Roslin's, or any other that can say how likely a text is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from roslin.answer import Roslin
from roslin.engine import RowScore, ScoreRow, score_groups
from roslin.errors import InputError
from roslin.evaluate.question import Choice, Question
from roslin.evaluate.scores import Profile
from roslin.tokens import Tokenizer

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
        """Each question's number and its scores, longest questions first."""
        encode = raw_pairs if self.profile == "raw" else self._instruct_pairs
        pairs = iter(encode(self._model.tokenizer, [choice for question in questions for choice in question.choices]))
        positions = self._model.decoder.config.positions
        groups, cut = [], []
        for number, question in enumerate(questions, 1):
            rows = [next(pairs) for _ in question.choices]
            groups.append([_fitting(row, positions, number) for row in rows])
            cut.append([row.read > positions for row in rows])
        for number, scores in score_groups(self._model.decoder, groups, self._tokens_per_pass):
            yield number, [_choice_score(*scored) for scored in zip(scores, cut[number], strict=True)]

    def _instruct_pairs(self, tokenizer: Tokenizer, choices: Sequence[Choice]) -> Iterator[ScoreRow]:
        """Each context as an instruction in the model's own prompt, the continuation as the beginning of the answer."""
        contexts = {choice.context: None for choice in choices}
        prompts = {context: self._model.prompts.ids(context, None) for context in contexts}
        continuations = tokenizer.encode_all([choice.continuation.lstrip() for choice in choices])
        for choice, continuation in zip(choices, continuations, strict=True):
            before = prompts[choice.context]
            yield ScoreRow([*before, *continuation], len(before))


def raw_pairs(tokenizer: Tokenizer, choices: Sequence[Choice]) -> Iterator[ScoreRow]:
    """Contexts and continuations as the LM Evaluation Harness encodes them (lm_eval 0.4.13, TemplateLM._encode_pair).

    Blanks that a context ends with count as the continuation's; both are encoded in one, and the continuation is what
    stands behind as many tokens as the context has by itself.
    """
    contexts = [choice.context.rstrip() for choice in choices]
    wholes = tokenizer.encode_all([choice.context + choice.continuation for choice in choices])
    unique = list(dict.fromkeys(contexts))
    lengths = dict(zip(unique, map(len, tokenizer.encode_all(unique)), strict=True))
    start = tokenizer.start_ids
    for context, whole in zip(contexts, wholes, strict=True):
        yield ScoreRow([*start, *whole], len(start) + lengths[context])


def _fitting(row: ScoreRow, positions: int, number: int) -> ScoreRow:
    """The row without the beginning that the model has no positions for, as the harness cuts it."""
    over = row.read - positions
    if over <= 0:
        return row
    if row.start - over < 1:
        raise InputError(
            f"question {number}: a choice has {row.scored} tokens, and the model has {positions} positions."
        )
    return ScoreRow(row.ids[over:], row.start - over)


def _choice_score(score: RowScore, truncated: bool) -> ChoiceScore:
    return ChoiceScore(score.log_likelihood, score.tokens, truncated)
