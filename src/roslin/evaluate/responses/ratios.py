"""Bootstrap intervals of many ratios over the same records at once."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from roslin.statistics import RESAMPLES, Interval
from roslin.statistics.resample import Floats, Ints, percentile_interval

_BLOCK = 256


def ratio_intervals(sums: Sequence[ArrayLike], counts: Sequence[ArrayLike], *, seed: int = 0) -> list[Interval]:
    """What `roslin.statistics.ratio_interval` gives for each pair of lists, one entry a record; drawn once for all."""
    if not sums:
        return []
    sums_RM, counts_RM = np.array(sums, dtype=np.float64).T, np.array(counts, dtype=np.float64).T
    drawn_SM: Floats = np.concatenate([(w_BR @ sums_RM) / (w_BR @ counts_RM) for w_BR in _draws(len(sums_RM), seed)])
    estimates_M = sums_RM.sum(0) / counts_RM.sum(0)
    columns = zip(estimates_M, drawn_SM[:RESAMPLES].T, strict=True)
    return [percentile_interval(float(estimate), drawn_S) for estimate, drawn_S in columns]


def _draws(records: int, seed: int) -> Iterator[Ints]:
    """How often each record is drawn, [_BLOCK, records] at a time."""
    rng = np.random.default_rng(seed)
    share = np.full(records, 1 / records)
    for _ in range(math.ceil(RESAMPLES / _BLOCK)):
        yield rng.multinomial(records, share, size=_BLOCK)
