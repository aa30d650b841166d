"""A difference between two models in words."""

from roslin.evaluate.responses.figures import Figure
from roslin.evaluate.responses.metrics import Metric
from roslin.statistics import CONFIDENCE

UNLIKE_TOKENS = "not comparable"
"""The two models cut a response, or its end, into tokens of other numbers: losses a token do not compare."""


def verdict(metric: Metric, change: Figure | None, p: float | None) -> str:
    """Whether a paired change is more than chance makes of it, by the test's `p`, and which way it goes."""
    if change is None or p is None:
        return UNLIKE_TOKENS
    same = 1.0 if metric.form == "exponential" else 0.0
    if change.estimate == same:
        return "no difference"
    if p >= 1 - CONFIDENCE:
        return "within noise"
    went = "lower" if change.estimate < same else "higher"
    return f"{went} {_by(metric, change.estimate)}{_judgement(metric, went)}"


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
