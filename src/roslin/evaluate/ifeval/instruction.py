"""One instruction of a prompt that a program can check, and what it was told to look for."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roslin.evaluate.ifeval.checks import CHECKS, RELATIONS, UNCHECKED


@dataclass(frozen=True)
class Instruction:
    """The kind by IFEval's name, such as `punctuation:no_comma`, and its arguments by IFEval's names."""

    kind: str
    arguments: Mapping[str, Any]

    @property
    def is_checked(self) -> bool:
        """Whether there is a check for it here; see `UNCHECKED`."""
        return self.kind in CHECKS

    def faults(self) -> list[str]:
        """All that is wrong with it: a kind that does not exist, arguments missing, unknown or of another type."""
        if self.kind in UNCHECKED:
            return []
        check = CHECKS.get(self.kind)
        if check is None:
            return [f"there is no instruction {self.kind!r}; the kinds are {', '.join(sorted({*CHECKS, *UNCHECKED}))}"]
        wanted = list(inspect.signature(check).parameters)[1:]
        missing = [f"{self.kind} lacks {name}" for name in wanted if name not in self.arguments]
        unknown = [f"{self.kind} has no {name}" for name in self.arguments if name not in wanted]
        wrong = [
            f"{self.kind}: {name} is {self.arguments[name]!r}; it must be {_description(check, name)}"
            for name in wanted
            if name in self.arguments and not _fits(check, name, self.arguments[name])
        ]
        return [*missing, *unknown, *wrong]

    def follows(self, answer: str) -> bool:
        """Whether an answer follows it; an empty answer follows nothing."""
        return bool(answer.strip()) and CHECKS[self.kind](answer, **self.arguments)

    def follows_loosely(self, answer: str) -> bool:
        """Whether the answer, or one of its loose readings, follows it."""
        return any(self.follows(reading) for reading in loose_readings(answer))


def loose_readings(answer: str) -> list[str]:
    """An answer without what often stands around one: Markdown's asterisks, the first line, the last line, or several.

    The eight readings of section 2.2 of Zhou et al. (2023): every choice of the three.
    """
    lines = answer.split("\n")
    cuts = [answer, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*cuts, *(cut.replace("*", "") for cut in cuts)]


def _fits(check: Callable[..., bool], name: str, value: object) -> bool:
    kind = inspect.signature(check).parameters[name].annotation
    if "relation" in name:
        return value in RELATIONS
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= (1 if name == "nth_paragraph" else 0)
    if kind is str:
        return isinstance(value, str) and bool(value.strip())
    return isinstance(value, Sequence) and not isinstance(value, str) and bool(value) and all(map(_is_text, value))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _description(check: Callable[..., bool], name: str) -> str:
    kind = inspect.signature(check).parameters[name].annotation
    if "relation" in name:
        return " or ".join(map(repr, RELATIONS))
    return {int: "a whole number, not negative", str: "a text"}.get(kind, "a list of texts")
