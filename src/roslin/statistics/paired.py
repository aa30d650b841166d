"""Two measurements of the same units: whether one has more successes, and by how much."""

import math

import numpy as np

from roslin.statistics.interval import Interval
from roslin.statistics.resample import Floats, percentile_interval
from roslin.statistics.share import wilson_interval
from roslin.statistics.tally import Tally


def sign_flip_p(tally: Tally) -> float:
    """Two-sided mid-p of no difference between a tally's two measurements: exact, and clusters are allowed for.

    Were the two alike, they could change places in any cluster: each cluster's difference in successes would as likely
    have the other sign. The sum of the differences is held against its distribution over all signs, computed exactly.
    Of the chance of the very sum seen half is left out (mid-p); with it the exact test is too timid. Where each unit is
    a cluster of its own this is McNemar's exact test in its mid-p form, which hardly ever exceeds its level (Fagerland,
    Lydersen and Laake 2013); with clusters, its normal approximation is the test of Durkalski and others (2003).
    """
    differences_K = tally.successes_KM[:, 1] - tally.successes_KM[:, 0]
    if not differences_K.any():
        return 1.0
    chances_S: Floats = np.ones(1, dtype=np.float64)  # of each sum of differences that have a plus sign
    for size in range(1, int(np.abs(differences_K).max()) + 1):
        clusters = int(tally.clusters_K[np.abs(differences_K) == size].sum())
        spread_S = np.zeros(size * clusters + 1)
        spread_S[::size] = _coin_tosses(clusters)
        chances_S = np.asarray(np.convolve(chances_S, spread_S), dtype=np.float64)
    sums_S = np.abs(2 * np.arange(len(chances_S)) - (len(chances_S) - 1))
    seen = abs(int(tally.clusters_K @ differences_K))
    return min(1.0, float(chances_S[sums_S > seen].sum() + chances_S[sums_S == seen].sum() / 2))


def paired_difference(tally: Tally, *, seed: int = 0) -> Interval:
    """Bootstrap percentile interval of the second share less the first, drawing clusters.

    Where no cluster is decided differently, drawing says nothing; the interval then holds all differences that a count
    of 0 in as many clusters leaves open, by Wilson's interval of it.
    """
    first, second = tally.shares_M.tolist()
    if (tally.successes_KM[:, 0] == tally.successes_KM[:, 1]).all():
        open_ = wilson_interval(0, tally.clusters).high
        return Interval(0.0, -open_, open_)
    drawn_RM = tally.resampled_shares(np.random.default_rng(seed))
    return percentile_interval(second - first, drawn_RM[:, 1] - drawn_RM[:, 0])


def _coin_tosses(tosses: int) -> Floats:
    """Chance of each number of heads."""
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, tosses + 1)))])
    return np.asarray(np.exp(log_factorials[-1] - log_factorials - log_factorials[::-1] - tosses * math.log(2)))
