"""How many instructions a model follows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from roslin.evaluate.ifeval.prompt import CheckedPrompt
from roslin.evaluate.responses import Drawing
from roslin.statistics import Interval, ratio_interval, wilson_interval

Reading = Literal["strict", "loose"]
READINGS: tuple[Reading, ...] = ("strict", "loose")


@dataclass(frozen=True)
class Followed:
    """A prompt, a model's answer, and for each instruction whether the answer follows it, strictly and loosely read."""

    prompt: CheckedPrompt
    answer: str
    strict: tuple[bool, ...]
    loose: tuple[bool, ...]

    @classmethod
    def of(cls, prompt: CheckedPrompt, answer: str) -> "Followed":
        """Check an answer; the prompt's instructions must all be checked kinds."""
        return cls(
            prompt,
            answer,
            tuple(instruction.follows(answer) for instruction in prompt.instructions),
            tuple(instruction.follows_loosely(answer) for instruction in prompt.instructions),
        )

    def by(self, reading: Reading) -> tuple[bool, ...]:
        """Whether each instruction is followed under one of the two readings."""
        return self.strict if reading == "strict" else self.loose


@dataclass(frozen=True)
class Accuracy:
    """Shares with their 95 % intervals under one reading."""

    prompts: Interval
    """Of the prompts, those all of whose instructions are followed; Wilson's interval."""
    instructions: Interval
    """Of all instructions; those of one prompt share an answer, so the bootstrap is over prompts."""
    by_kind: dict[str, Interval]
    """Of the instructions of each kind; Wilson's interval."""


@dataclass(frozen=True)
class IfevalReport:
    """A model judged by prompts with instructions that a program can check."""

    model: str
    source: str
    drawing: Drawing
    followed: Sequence[Followed]
    unchecked: Sequence[int]
    """Keys of the prompts left out for an instruction that no check here knows (the language of the answer)."""
    too_long: Sequence[int]
    """Keys of the prompts that the model has too few positions for."""

    @cached_property
    def strict(self) -> Accuracy:
        """Of the answers as they are."""
        return _accuracy(self.followed, "strict")

    @cached_property
    def loose(self) -> Accuracy:
        """Of the answers, each instruction by the reading that suits it best."""
        return _accuracy(self.followed, "loose")

    def as_dict(self) -> dict[str, Any]:
        """The whole report as JSON has it."""
        return {
            "model": self.model,
            "source": self.source,
            "drawing": asdict(self.drawing),
            "prompts": len(self.followed),
            "instructions": sum(len(each.strict) for each in self.followed),
            "left_out": {"unchecked": list(self.unchecked), "too_long": list(self.too_long)},
            "strict": asdict(self.strict),
            "loose": asdict(self.loose),
            "answers": [_answer(each) for each in self.followed],
        }


def _answer(followed: Followed) -> dict[str, Any]:
    return {
        "key": followed.prompt.key,
        "instructions": [instruction.kind for instruction in followed.prompt.instructions],
        "strict": list(followed.strict),
        "loose": list(followed.loose),
        "answer": followed.answer,
    }


def _accuracy(followed: Sequence[Followed], reading: Reading) -> Accuracy:
    checked = [each.by(reading) for each in followed]
    return Accuracy(
        prompts=wilson_interval(sum(map(all, checked)), len(checked)),
        instructions=ratio_interval([sum(each) for each in checked], [len(each) for each in checked]),
        by_kind=_by_kind(followed, reading),
    )


def _by_kind(followed: Sequence[Followed], reading: Reading) -> dict[str, Interval]:
    outcomes: dict[str, list[bool]] = {}
    for each in followed:
        for instruction, right in zip(each.prompt.instructions, each.by(reading), strict=True):
            outcomes.setdefault(instruction.kind, []).append(right)
    return {kind: wilson_interval(sum(right), len(right)) for kind, right in sorted(outcomes.items())}
