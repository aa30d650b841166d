"""How sure a figure is: bootstrap intervals of ratios and of paired differences, and the Wilson interval of a share."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
RESAMPLES = 10_000
_BLOCK = 256

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval that holds the truth with the stated confidence (0.95 unless said)."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        """The estimate with its interval, as people write it."""
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


def ratio_interval(sums: ArrayLike, counts: ArrayLike, *, seed: int = 0) -> Interval:
    """Bootstrap percentile interval of sum(sums) / sum(counts), resampling units (records), not tokens.

    `sums` and `counts` have one entry a unit, such as a record's summed loss and its number of tokens.
    """
    sums_R, counts_R = _paired(sums, counts)
    ratios = _resample(len(sums_R), seed, lambda w_BR: (w_BR @ sums_R) / (w_BR @ counts_R))
    return _percentile(float(sums_R.sum() / counts_R.sum()), ratios)


def paired_ratio_difference(before: ArrayLike, after: ArrayLike, counts: ArrayLike, *, seed: int = 0) -> Interval:
    """Bootstrap percentile interval of (sum(after) - sum(before)) / sum(counts) for the same units measured twice."""
    before_R, after_R = _paired(before, after)
    return ratio_interval(after_R - before_R, counts, seed=seed)


def wilson_interval(successes: int, trials: int) -> Interval:
    """Wilson score interval of a share (Wilson 1927); well behaved at 0 and at 1."""
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes of {trials} trials is no share")
    z = 1.959963984540054  # the normal quantile of CONFIDENCE, two-sided
    share = successes / trials
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / scale
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def _paired(first: ArrayLike, second: ArrayLike) -> tuple[Floats, Floats]:
    first_R, second_R = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first_R.shape != second_R.shape or first_R.ndim != 1 or len(first_R) == 0:
        raise ValueError(f"need two equally long, non-empty lists, got shapes {first_R.shape} and {second_R.shape}")
    return first_R, second_R


def _resample(units: int, seed: int, statistic: Callable[[NDArray[np.int64]], Floats]) -> Floats:
    """Values of `statistic` over multinomial weights [block, units], in blocks so that memory stays small."""
    rng = np.random.default_rng(seed)
    share = np.full(units, 1 / units)
    blocks = [statistic(rng.multinomial(units, share, size=_BLOCK)) for _ in range(math.ceil(RESAMPLES / _BLOCK))]
    return np.concatenate(blocks)[:RESAMPLES]


def _percentile(estimate: float, values: Floats) -> Interval:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return Interval(estimate, float(low), float(high))
