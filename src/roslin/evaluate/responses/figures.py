"""The figures of a set of judged records, each with how sure it is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from roslin.evaluate.responses.judged import Judged
from roslin.evaluate.responses.metrics import METRICS, Metric
from roslin.evaluate.responses.ratios import ratio_intervals
from roslin.statistics import FEWEST_FOR_INTERVALS, Interval, wilson_interval


@dataclass(frozen=True)
class Figure:
    """An estimate, and its 95 % interval where there are records enough for one."""

    estimate: float
    interval: Interval | None

    @classmethod
    def of(cls, interval: Interval, records: int) -> "Figure":
        """A bootstrap interval over so many records."""
        return cls(interval.estimate, interval if records >= FEWEST_FOR_INTERVALS else None)

    def as_dict(self) -> dict[str, float | None]:
        """The estimate and the ends of the interval, None where there is none or a number is none."""
        low, high = (self.interval.low, self.interval.high) if self.interval else (None, None)
        return {"estimate": self.estimate, "low": low, "high": high}


@dataclass(frozen=True)
class Quartiles:
    """Lengths of which a quarter, a half and three quarters of the answers are no longer; in tokens."""

    lower: float
    median: float
    upper: float


@dataclass(frozen=True)
class Figures:
    """All figures of one set of records, by the metric's name."""

    records: int
    by_metric: dict[str, Figure]
    length: Quartiles

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        metrics = {name: figure.as_dict() for name, figure in self.by_metric.items()}
        return {"records": self.records, "length_quartiles": vars(self.length).copy(), **metrics}


def figures(judged: Sequence[Judged]) -> Figures:
    """The figures of some records, at least one: shares by Wilson's interval, others by the bootstrap over records."""
    return Figures(len(judged), figures_of(METRICS, judged), _quartiles(judged))


def reference_figures(judged: Sequence[Judged]) -> Figures:
    """What the records' own responses show of those metrics that need nothing but a text."""
    mirrored = [replace(each, traits=each.reference) for each in judged]
    metrics = [metric for metric in METRICS if metric.of_answers]
    return Figures(len(judged), figures_of(metrics, mirrored), _quartiles(mirrored))


def figures_of(metrics: Sequence[Metric], judged: Sequence[Judged]) -> dict[str, Figure]:
    """Some metrics of some records, at least one."""
    ratios = [metric for metric in metrics if metric.form != "share"]
    amounts = [[metric.amount(each) for each in judged] for metric in ratios]
    counts = [[metric.count(each) for each in judged] for metric in ratios]
    found = {
        metric.name: Figure.of(exponential(interval) if metric.form == "exponential" else interval, len(judged))
        for metric, interval in zip(ratios, ratio_intervals(amounts, counts), strict=True)
    }
    for metric in metrics:
        if metric.form == "share":
            interval = wilson_interval(sum(map(bool, map(metric.amount, judged))), len(judged))
            found[metric.name] = Figure(interval.estimate, interval)
    return {metric.name: found[metric.name] for metric in metrics}


def exponential(interval: Interval) -> Interval:
    """The interval of the exponential; infinite where that is too large for a number."""
    return Interval(*(_exp(value) for value in (interval.estimate, interval.low, interval.high)))


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _quartiles(judged: Sequence[Judged]) -> Quartiles:
    return Quartiles(*(float(q) for q in np.percentile([each.traits.tokens for each in judged], [25, 50, 75])))
