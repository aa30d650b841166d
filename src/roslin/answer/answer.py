"""What is asked of a model and what it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from roslin.engine import FinishReason, Sampling, Timings
from roslin.errors import InputError
from roslin.records.record import Record

Question = str | tuple[str, str | None] | Record | Mapping[str, Any]
"""An instruction, an instruction with its context, a record, or a mapping with `instruction` and perhaps `context`."""


@dataclass(frozen=True)
class TokenLogprob:
    """A token, its text, and its log-probability under the model itself (before temperature, top_p and top_k)."""

    id: int
    text: str
    logprob: float
    top: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True)
class Answer:
    """One answer. `tokens` are all ids drawn but the end key, those of a stop string included; `seed` repeats it."""

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprob, ...] | None
    timings: Timings
    seed: int


@dataclass(frozen=True)
class Score:
    """Log-likelihood of a response and its end key, in nats, and the number of tokens it sums over."""

    log_likelihood: float
    tokens: int

    @property
    def loss(self) -> float:
        """Nats a token: what tuning calls the response loss."""
        return -self.log_likelihood / self.tokens


class Keywords(TypedDict, total=False):
    """The keyword arguments that every way of asking takes; see `Settings`."""

    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int | None
    greedy: bool
    stop: str | Sequence[str]
    logprobs: bool | int


@dataclass(frozen=True)
class Settings:
    """How an answer is drawn and where it ends; the defaults are Dolly's.

    `stop` strings end an answer and are no part of it. `logprobs` True reports each token's log-probability, a number
    the most probable alternatives too. A `seed` of None draws a fresh one. Raises InputError with all that is wrong.
    """

    max_new_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 0.92
    top_k: int = 0
    seed: int | None = None
    greedy: bool = False
    stop: str | Sequence[str] = ()
    logprobs: bool | int = False

    def __post_init__(self) -> None:
        """Refuse what no answer can be drawn with."""
        faults = self.sampling(0, 0).faults()
        if self.max_new_tokens < 1:
            faults.append(f"max_new_tokens is {self.max_new_tokens}; it must be 1 or more")
        if not all(self.stops):
            faults.append("a stop string is empty; it would end every answer before its first character")
        if self.top_logprobs < 0:
            faults.append(f"logprobs is {self.logprobs}; it must be 0 or more")
        if faults:
            raise InputError(f"These settings cannot be used: {'; '.join(faults)}.")

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def top_logprobs(self) -> int:
        """How many alternatives are reported for each token."""
        return 0 if isinstance(self.logprobs, bool) else self.logprobs

    def sampling(self, seed: int, stream: int) -> Sampling:
        """The engine's settings for the answer number `stream` of several."""
        temperature = 0.0 if self.greedy else self.temperature
        return Sampling(temperature, self.top_p, self.top_k, seed, stream)


def read_question(question: Question) -> tuple[str, str | None]:
    """Instruction and context of a question. Raises InputError when there is no instruction, or it is no text."""
    instruction, context = _fields(question)
    if not isinstance(instruction, str) or not isinstance(context, str | None):
        raise InputError("an instruction must be text, and its context text or None")
    if not instruction.strip():
        raise InputError("the instruction is empty")
    check_text("instruction", instruction)
    check_text("context", context or "")
    return instruction, context


def check_text(name: str, text: str) -> None:
    """Raise InputError when a text has no UTF-8 form."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InputError(f"the {name} is not valid Unicode text: it holds half a surrogate pair")


def _fields(question: Question) -> tuple[Any, Any]:
    match question:
        case Record():
            return question.instruction, question.context
        case Mapping():
            return question.get("instruction"), question.get("context")
        case tuple() if len(question) == 2:
            return question
        case _:
            return question, None


def read_questions(questions: Sequence[Question]) -> list[tuple[str, str | None]]:
    """Instructions and contexts of many questions. Raises one InputError that lists every fault by its number."""
    read: list[tuple[str, str | None]] = []
    faults: list[list[str]] = []
    for question in questions:
        try:
            read.append(read_question(question))
            faults.append([])
        except InputError as error:
            faults.append([str(error)])
    raise_faults(faults)
    return read


def raise_faults(faults: Sequence[Sequence[str]]) -> None:
    """Raise one InputError that lists what is wrong with each question by its number, if anything is."""
    if any(faults):
        names = [f"Question {number}" for number in range(1, len(faults) + 1)] if len(faults) > 1 else ["The question"]
        named = zip(names, faults, strict=True)
        raise InputError("\n".join(f"{name}: {'; '.join(found)}." for name, found in named if found))
