"""A difference between two models in words."""

from roslin.evaluate.responses.figures import FEWEST_FOR_INTERVALS, Figure
from roslin.evaluate.responses.metrics import Metric
from roslin.statistics import CONFIDENCE

WITHIN_NOISE = "within noise"


def verdict(metric: Metric, change: Figure, p: float | None = None) -> str:
    """Whether a paired change is more than chance makes of it, and which way it goes.

    A share is decided by its test's `p`, any other metric by its 95 % interval, where there are records enough for one.
    """
    same = 1.0 if metric.form == "exponential" else 0.0
    if change.estimate == same:
        return "no difference"
    if p is None and change.interval is None:
        return f"fewer than {FEWEST_FOR_INTERVALS} records: too few to tell from noise"
    if _by_chance(change, same, p):
        return WITHIN_NOISE
    went = "lower" if change.estimate < same else "higher"
    return f"{went} {_by(metric, change.estimate)}{_judgement(metric, went)}"


def _by_chance(change: Figure, same: float, p: float | None) -> bool:
    if p is not None:
        return p >= 1 - CONFIDENCE
    return change.interval is not None and change.interval.low <= same <= change.interval.high


def _by(metric: Metric, change: float) -> str:
    if metric.form == "exponential":
        return f"(× {change:.3g})"
    if metric.form == "share":
        return f"by {100 * abs(change):.1f} points"
    return f"by {abs(change):.{metric.decimals}f} {metric.unit}"


def _judgement(metric: Metric, went: str) -> str:
    if metric.better == "neither":
        return ""
    return ": better" if went == metric.better else ": worse"
