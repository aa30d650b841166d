"""Bootstrap intervals of ratios and of paired differences."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from roslin.statistics.interval import CONFIDENCE, Interval

RESAMPLES = 10_000
FEWEST_FOR_INTERVALS = 10
"""Below this many units a bootstrap interval is far too narrow; of one unit it has no width at all."""
_BLOCK = 256

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def ratio_interval(sums: ArrayLike, counts: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Bootstrap percentile interval of sum(sums) / sum(counts), resampling units (records), not tokens.

    `sums` and `counts` have one entry a unit, such as a record's summed loss and its number of tokens.
    """
    sums_R, counts_R = _paired(sums, counts)
    ratios = _resample(len(sums_R), seed, resamples, lambda w_BR: (w_BR @ sums_R) / (w_BR @ counts_R))
    return percentile_interval(float(sums_R.sum() / counts_R.sum()), ratios)


def paired_ratio_difference(before: ArrayLike, after: ArrayLike, counts: ArrayLike, *, seed: int = 0) -> Interval:
    """Bootstrap percentile interval of (sum(after) - sum(before)) / sum(counts) for the same units measured twice."""
    before_R, after_R = _paired(before, after)
    return ratio_interval(after_R - before_R, counts, seed=seed)


def percentile_interval(estimate: float, values: Floats) -> Interval:
    """The interval between the percentiles of resampled values that leave out as much on either side."""
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return Interval(estimate, float(low), float(high))


def _paired(first: ArrayLike, second: ArrayLike) -> tuple[Floats, Floats]:
    first_R, second_R = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first_R.shape != second_R.shape or first_R.ndim != 1 or len(first_R) == 0:
        raise ValueError(f"need two equally long, non-empty lists, got shapes {first_R.shape} and {second_R.shape}")
    return first_R, second_R


def _resample(units: int, seed: int, resamples: int, statistic: Callable[[Ints], Floats]) -> Floats:
    """Values of `statistic` over multinomial weights [block, units], in blocks so that memory stays small."""
    rng = np.random.default_rng(seed)
    share = np.full(units, 1 / units)
    blocks = [statistic(rng.multinomial(units, share, size=_BLOCK)) for _ in range(math.ceil(resamples / _BLOCK))]
    return np.concatenate(blocks)[:resamples]
