"""Two models judged by the same records, paired record by record."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from roslin.errors import InputError, UsageError
from roslin.evaluate.responses.figures import Figure, exponential, figure
from roslin.evaluate.responses.judged import Judged
from roslin.evaluate.responses.metrics import METRICS, Metric
from roslin.evaluate.responses.report import ResponseReport, by_category
from roslin.evaluate.responses.verdict import verdict
from roslin.statistics import Tally, paired_difference, paired_ratio_difference, sign_flip_p

UNLIKE_TOKENS = "not comparable: the two models cut the responses into different tokens; see bits per byte"

Pair = tuple[Judged, Judged]


@dataclass(frozen=True)
class Change:
    """One metric of the same records under both models."""

    metric: Metric
    before: Figure
    after: Figure
    change: Figure | None
    """After minus before, with a paired bootstrap interval; for an exponential, after divided by before. None where the
    two do not compare."""
    p: float | None
    """Of a share: McNemar's exact test, mid-p, two-sided; None of others, whose interval alone tells."""
    verdict: str

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "before": self.before.as_dict(),
            "after": self.after.as_dict(),
            "change": self.change.as_dict() if self.change else None,
            "p": self.p,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Changes:
    """All metrics of one set of records."""

    records: int
    by_metric: dict[str, Change]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"records": self.records, **{name: change.as_dict() for name, change in self.by_metric.items()}}


@dataclass(frozen=True)
class ResponseComparison:
    """Two models judged by the same records."""

    before: ResponseReport
    after: ResponseReport
    pairs: Sequence[Pair]
    """The records that both models have positions for."""

    @property
    def unpaired(self) -> list[int]:
        """Numbers of the records that only one of the two models could be judged by; they are in no difference."""
        numbers = [{judged.number for judged in report.judged} for report in (self.before, self.after)]
        return sorted(numbers[0] ^ numbers[1])

    @cached_property
    def overall(self) -> Changes:
        """The differences over all pairs."""
        return changes(self.pairs)

    @cached_property
    def by_category(self) -> dict[str, Changes]:
        """The differences within each category. Many intervals stand side by side: of twenty, one misses by chance."""
        after = {second.number: second for _, second in self.pairs}
        parts = by_category([first for first, _ in self.pairs])
        return {name: changes([(first, after[first.number]) for first in part]) for name, part in parts.items()}

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it; the answers are in the two reports."""
        return {
            "before": self.before.model,
            "after": self.after.model,
            "drawing": {"before": asdict(self.before.drawing), "after": asdict(self.after.drawing)},
            "records": len(self.pairs),
            "unpaired": self.unpaired,
            "overall": self.overall.as_dict(),
            "by_category": {name: found.as_dict() for name, found in self.by_category.items()},
        }


def compare_responses(before: ResponseReport, after: ResponseReport) -> ResponseComparison:
    """Pair two reports over the records that both were judged by.

    Raises UsageError when their answers were drawn in different ways (seeds may differ), InputError when they were
    judged by different records, or have none in common.
    """
    if replace(before.drawing, seed=after.drawing.seed) != after.drawing:
        raise UsageError(
            f"The answers were drawn in different ways, so they do not compare: {before.model} {before.drawing}; "
            f"{after.model} {after.drawing}. Judge both in the same way."
        )
    known = {judged.number: judged for judged in before.judged}
    pairs = [(known[judged.number], judged) for judged in after.judged if judged.number in known]
    differing = [second.number for first, second in pairs if first.record != second.record]
    if differing:
        raise InputError(
            f"{before.model} and {after.model} were judged by different records: {len(differing)} of {len(pairs)} "
            f"differ, the first of them record {differing[0]}. Judge both by the same records."
        )
    if not pairs:
        raise InputError(f"{before.model} and {after.model} have no record in common, so nothing can be compared.")
    return ResponseComparison(before, after, pairs)


def changes(pairs: Sequence[Pair]) -> Changes:
    """All metrics of some pairs, at least one."""
    return Changes(len(pairs), {metric.name: _change(metric, pairs) for metric in METRICS})


def _change(metric: Metric, pairs: Sequence[Pair]) -> Change:
    before, after = [first for first, _ in pairs], [second for _, second in pairs]
    found = figure(metric, before), figure(metric, after)
    amounts = [metric.amount(each) for each in before], [metric.amount(each) for each in after]
    if metric.form == "share":
        tally = Tally.of_outcomes([str(judged.number) for judged in before], *amounts)
        interval = paired_difference(tally)
        change, p = Figure(interval.estimate, interval), sign_flip_p(tally)
        return Change(metric, *found, change, p, verdict(metric, change, p))
    counts = [metric.count(each) for each in before]
    if counts != [metric.count(each) for each in after]:
        return Change(metric, *found, None, None, UNLIKE_TOKENS)
    difference = paired_ratio_difference(amounts[0], amounts[1], counts)
    change = Figure.of(exponential(difference) if metric.form == "exponential" else difference, len(pairs))
    return Change(metric, *found, change, None, verdict(metric, change))
