"""Two models judged by the same records, paired record by record."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from roslin.errors import InputError, UsageError
from roslin.evaluate.responses.change import Change, Pair, changes_of
from roslin.evaluate.responses.report import ResponseReport, by_category
from roslin.statistics import holm


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
        """The differences over all pairs, their p values corrected for the number of metrics."""
        return Changes(len(self.pairs), _over_metrics(changes_of(self.pairs)))

    @cached_property
    def by_category(self) -> dict[str, Changes]:
        """The differences within each category, the p values of a metric corrected for the number of categories."""
        after = {second.number: second for _, second in self.pairs}
        parts = {
            name: [(first, after[first.number]) for first in part]
            for name, part in by_category([first for first, _ in self.pairs]).items()
        }
        by_metric = zip(*(changes_of(part) for part in parts.values()), strict=True)
        rows = [corrected(changes) for changes in by_metric]
        return {
            name: Changes(len(part), {row[place].metric.name: row[place] for row in rows})
            for place, (name, part) in enumerate(parts.items())
        }

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


def _over_metrics(found: Sequence[Change]) -> dict[str, Change]:
    """Changes by metric, corrected for each other; an exponential is no test of its own, but that of its exponent."""
    tests = corrected([change for change in found if change.metric.form != "exponential"])
    by_name = {change.metric.name: change for change in tests}
    for change in found:
        if change.metric.form == "exponential":
            same = next(test for test in tests if test.metric.amount is change.metric.amount)
            by_name[change.metric.name] = replace(change, adjusted=same.adjusted)
    return {change.metric.name: by_name[change.metric.name] for change in found}


def corrected(found: Sequence[Change]) -> list[Change]:
    """The same changes, their p values corrected for being many; those that do not compare stay out of it."""
    adjusted = iter(holm([change.p for change in found if change.p is not None]))
    return [change if change.p is None else replace(change, adjusted=next(adjusted)) for change in found]
