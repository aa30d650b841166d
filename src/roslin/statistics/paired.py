"""Two measurements of the same units: whether one has more successes, and by how much."""

import math

import numpy as np

from roslin.statistics.interval import Interval
from roslin.statistics.resample import Floats, percentile_interval
from roslin.statistics.tally import Tally


def sign_flip_p(tally: Tally) -> float:
    """Two-sided mid-p of no difference between a tally's two measurements: exact, and clusters are allowed for.

    Were the two alike, they could change places in any cluster: each cluster's difference in successes would as likely
    have the other sign. The sum of the differences is held against its distribution over all signs, computed exactly.
    Of the chance of the very sum seen half is left out (mid-p); with it the exact test is too timid. Where each unit is
    a cluster of its own this is McNemar's exact test in its mid-p form, which hardly ever exceeds its level (Fagerland,
    Lydersen and Laake 2013); with K clusters, its normal approximation is the test of Obuchowski (1998) but for a
    factor of (K - 1) / K.
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

    Where few units are decided differently, or none, drawing alone knows of no others and gives intervals that are too
    short or end at 0. So the clusters drawn from have two more units among them, of which either measurement has one
    alone, as Bonett and Price (2012) add them. Among thousands of units they change nothing that shows.
    """
    first, second = tally.shares_M.tolist()
    drawn_RM = _with_one_for_each(tally).resampled_shares(np.random.default_rng(seed))
    return percentile_interval(second - first, drawn_RM[:, 1] - drawn_RM[:, 0])


def _with_one_for_each(tally: Tally) -> Tally:
    return Tally(
        np.append(tally.units_K, [1, 1]),
        np.vstack([tally.successes_KM, [[1, 0], [0, 1]]]),
        np.append(tally.clusters_K, [1, 1]),
    )


def _coin_tosses(tosses: int) -> Floats:
    """Chance of each number of heads."""
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, tosses + 1)))])
    return np.asarray(np.exp(log_factorials[-1] - log_factorials - log_factorials[::-1] - tosses * math.log(2)))
