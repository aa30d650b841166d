"""Two models judged by the same prompts, paired prompt by prompt."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from roslin.errors import InputError, UsageError
from roslin.evaluate.ifeval.report import READINGS, Followed, IfevalReport, Reading
from roslin.statistics import CONFIDENCE, Interval, Tally, paired_difference, sign_flip_p


@dataclass(frozen=True)
class Shift:
    """A share of two models: after minus before, with a paired bootstrap interval over prompts."""

    before: float
    after: float
    change: Interval
    p: float
    """Of no difference: exact, two-sided, mid-p, over prompts (McNemar's test for the share of prompts)."""

    @property
    def verdict(self) -> str:
        """In words."""
        if self.change.estimate == 0:
            return "no difference"
        if self.p >= 1 - CONFIDENCE:
            return "within noise"
        went = "higher" if self.change.estimate > 0 else "lower"
        judged = "better" if self.change.estimate > 0 else "worse"
        return f"{went} by {100 * abs(self.change.estimate):.1f} points: {judged}"

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "verdict": self.verdict}


@dataclass(frozen=True)
class IfevalComparison:
    """Two models judged by the same prompts."""

    before: str
    after: str
    pairs: int
    prompts: dict[Reading, Shift]
    """Of prompts all of whose instructions are followed."""
    instructions: dict[Reading, Shift]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        shifts = {"prompts": self.prompts, "instructions": self.instructions}
        found = {name: {reading: each.as_dict() for reading, each in part.items()} for name, part in shifts.items()}
        return {"before": self.before, "after": self.after, "pairs": self.pairs, **found}


def compare_ifeval(before: IfevalReport, after: IfevalReport) -> IfevalComparison:
    """Pair two reports over the prompts that both models answered.

    Raises UsageError when their answers were drawn in different ways (seeds may differ), InputError when they have no
    prompt in common.
    """
    if replace(before.drawing, seed=after.drawing.seed) != after.drawing:
        raise UsageError(
            f"The answers were drawn in different ways, so they do not compare: {before.model} {before.drawing}; "
            f"{after.model} {after.drawing}. Judge both in the same way."
        )
    known = {each.prompt.key: each for each in before.followed}
    pairs = [(known[each.prompt.key], each) for each in after.followed if each.prompt.key in known]
    pairs = [(first, second) for first, second in pairs if first.prompt == second.prompt]
    if not pairs:
        raise InputError(f"{before.model} and {after.model} have no prompt in common, so nothing can be compared.")
    return IfevalComparison(
        before.model,
        after.model,
        len(pairs),
        {reading: _shift_of_prompts(pairs, reading) for reading in READINGS},
        {reading: _shift_of_instructions(pairs, reading) for reading in READINGS},
    )


def _shift_of_prompts(pairs: Sequence[tuple[Followed, Followed]], reading: Reading) -> Shift:
    sides = [[all(each.by(reading)) for each in side] for side in zip(*pairs, strict=True)]
    return _shift([str(number) for number in range(len(pairs))], sides)


def _shift_of_instructions(pairs: Sequence[tuple[Followed, Followed]], reading: Reading) -> Shift:
    clusters = [str(number) for number, (first, _) in enumerate(pairs) for _ in first.strict]
    sides = [[right for each in side for right in each.by(reading)] for side in zip(*pairs, strict=True)]
    return _shift(clusters, sides)


def _shift(clusters: Sequence[str], sides: Sequence[Sequence[bool]]) -> Shift:
    tally = Tally.of_outcomes(clusters, *sides)
    before, after = tally.shares_M.tolist()
    return Shift(before, after, paired_difference(tally), sign_flip_p(tally))
