"""One metric of the same records under two models: the difference, how sure it is, and whether chance makes as much."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from roslin.evaluate.responses.figures import Figure, exponential, figures_of
from roslin.evaluate.responses.judged import Judged
from roslin.evaluate.responses.metrics import METRICS, Metric
from roslin.evaluate.responses.ratios import ratio_intervals
from roslin.evaluate.responses.verdict import verdict
from roslin.statistics import Tally, paired_difference, sign_flip_p

Pair = tuple[Judged, Judged]

FLIPS = 10_000
FEW = 12
"""So few records have fewer choices of signs than FLIPS: all of them are tried."""


@dataclass(frozen=True)
class Change:
    """A metric before and after, over the same records."""

    metric: Metric
    before: Figure
    after: Figure
    change: Figure | None
    """After minus before, with a paired bootstrap interval; for an exponential, after divided by before. None where the
    two do not compare."""
    p: float | None
    """Of no difference, two-sided: McNemar's exact test (mid-p) of a share, a sign-flip test of any other metric."""
    adjusted: float | None
    """The same, corrected (Holm) for the metrics or categories that stand beside it: what the verdict is by."""

    @property
    def verdict(self) -> str:
        """The change in words."""
        return verdict(self.metric, self.change, self.adjusted)

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "before": self.before.as_dict(),
            "after": self.after.as_dict(),
            "change": self.change.as_dict() if self.change else None,
            "p": self.p,
            "p_adjusted": self.adjusted,
            "verdict": self.verdict,
        }


def changes_of(pairs: Sequence[Pair]) -> list[Change]:
    """The change of every metric over some pairs, at least one; `adjusted` is `p` as yet."""
    before, after = figures_of(METRICS, [first for first, _ in pairs]), figures_of(METRICS, [last for _, last in pairs])
    ratios = [metric for metric in METRICS if metric.form != "share" and _comparable(metric, pairs)]
    differences = [[metric.amount(last) - metric.amount(first) for first, last in pairs] for metric in ratios]
    counts = [[metric.count(first) for first, _ in pairs] for metric in ratios]
    found: dict[str, tuple[Figure, float]] = {}
    for metric, interval, moved in zip(ratios, ratio_intervals(differences, counts), differences, strict=True):
        change = Figure.of(exponential(interval) if metric.form == "exponential" else interval, len(pairs))
        found[metric.name] = change, sign_flip(moved)
    found |= {metric.name: _change_of_share(metric, pairs) for metric in METRICS if metric.form == "share"}
    return [_change(metric, before[metric.name], after[metric.name], found.get(metric.name)) for metric in METRICS]


def _comparable(metric: Metric, pairs: Sequence[Pair]) -> bool:
    """Whether both models count the same in every record: tokens need not be the same in number."""
    return all(metric.count(first) == metric.count(last) for first, last in pairs)


def _change_of_share(metric: Metric, pairs: Sequence[Pair]) -> tuple[Figure, float]:
    outcomes = [[metric.amount(pair[side]) for pair in pairs] for side in (0, 1)]
    tally = Tally.of_outcomes([str(first.number) for first, _ in pairs], *outcomes)
    interval = paired_difference(tally)
    return Figure(interval.estimate, interval), sign_flip_p(tally)


def _change(metric: Metric, before: Figure, after: Figure, found: tuple[Figure, float] | None) -> Change:
    change, p = found or (None, None)
    return Change(metric, before, after, change, p, p)


def sign_flip(differences: ArrayLike, *, seed: int = 0) -> float:
    """Two-sided p of no difference between two measurements of the same records, from the differences.

    Were the two alike, each difference would as likely have the other sign (Fisher's randomization test for pairs). The
    sum is held against those of all choices of signs, or of FLIPS random ones, the one seen among them.
    """
    all_R = np.asarray(differences, dtype=np.float64)
    moved_R = all_R[all_R != 0]
    if len(moved_R) == 0:
        return 1.0
    seen = abs(moved_R.sum()) * (1 - 1e-9)  # rounding must not tell equal sums apart
    if len(moved_R) <= FEW:
        signs_SR = 1 - 2 * (np.arange(2 ** len(moved_R))[:, None] >> np.arange(len(moved_R)) & 1)
        return float((np.abs(signs_SR @ moved_R) >= seen).mean())
    rng = np.random.default_rng(seed)
    blocks = [1 - 2 * rng.integers(0, 2, (FLIPS // 10, len(moved_R)), dtype=np.int8) for _ in range(10)]
    as_far = sum(int((np.abs(block_SR @ moved_R) >= seen).sum()) for block_SR in blocks)
    return (as_far + 1) / (FLIPS + 1)
