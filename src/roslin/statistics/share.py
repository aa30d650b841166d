"""Shares: their intervals, and whether two of them differ."""

import math
from dataclasses import dataclass

from roslin.statistics.interval import Interval, Z, normal_p
from roslin.statistics.tally import Tally


@dataclass(frozen=True)
class Share:
    """A share of units with its Wilson interval, which allows for clusters."""

    successes: int
    trials: int
    interval: Interval
    error: float
    """Standard error, which allows for clusters as they are; nan where there is a single cluster."""
    design_effect: float
    """How many times the variance is that of as many independent units (Kish 1965).

    nan where there are clusters of several units and all units are alike, or a single cluster.
    """
    effective: float
    """How many independent units are worth as much: at most `trials`."""


def wilson_interval(successes: float, trials: float) -> Interval:
    """Wilson score interval of a share (Wilson 1927); well behaved at 0 and at 1. Counts may be effective ones."""
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes of {trials} trials is no share")
    share = successes / trials
    scale = 1 + Z * Z / trials
    centre = (share + Z * Z / (2 * trials)) / scale
    half = Z * math.sqrt(share * (1 - share) / trials + Z * Z / (4 * trials * trials)) / scale
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def share_of(tally: Tally, *, design_effect: float = 1.0) -> Share:
    """The share of a tally of one measurement.

    Its interval is Wilson's with the effective number of units, trials / design effect (as Korn and Graubard 1998 have
    it with Clopper and Pearson's). A design effect below 1 is taken as 1: that the units of a cluster happen to be less
    alike than chance is no ground for more certainty. Where all units succeed or all fail their likeness cannot be
    told, and those of a cluster are taken to be all alike, which leaves (sum of sizes)² / sum of squared sizes.

    `design_effect`: the least to allow for, known from elsewhere where the tally has counts only.
    """
    [successes], [share], trials = tally.totals_M.tolist(), tally.shares_M.tolist(), tally.units
    found = _design_effect(tally)
    likeness = tally.clusters_K @ tally.units_K**2 / trials if math.isnan(found) else max(found, 1.0)
    effective = trials / max(float(likeness), design_effect)
    wilson = wilson_interval(share * effective, effective)
    error = math.sqrt(tally.variance(tally.residuals_KM[:, 0]))
    return Share(successes, trials, Interval(share, wilson.low, wilson.high), error, found, effective)


def _design_effect(tally: Tally) -> float:
    """The variance of a tally's share over that of as many single units; nan where it cannot be told."""
    share = float(tally.shares_M[0])
    if tally.clusters == tally.units:
        return 1.0
    if tally.clusters < 2 or share in (0.0, 1.0):
        return math.nan
    return tally.variance(tally.residuals_KM[:, 0]) / (share * (1 - share) / (tally.units - 1))


def share_difference(first: Share, second: Share) -> Interval:
    """Interval of second - first, of different units or of counts only: method 10 of Newcombe (1998)."""
    p, q = first.interval, second.interval
    change = q.estimate - p.estimate
    down = math.hypot(q.estimate - q.low, p.high - p.estimate)
    up = math.hypot(q.high - q.estimate, p.estimate - p.low)
    return Interval(change, max(-1.0, change - down), min(1.0, change + up))


def share_difference_p(first: Share, second: Share) -> float:
    """Two-sided p of two shares, of different units or of counts only: the "N - 1" chi-squared test (Campbell 2007).

    Counts are effective ones. Good from small numbers on, as long as each expected count is at least 1.
    """
    n, m = first.effective, second.effective
    pooled = (first.interval.estimate * n + second.interval.estimate * m) / (n + m)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m) * (n + m) / (n + m - 1))
    return normal_p(second.interval.estimate - first.interval.estimate, error)
