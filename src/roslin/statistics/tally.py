"""Outcomes of units (questions, say), counted by the kinds of their clusters.

All that matters of a cluster here is how many units it has and how many of those are successes: few kinds occur, often.
What is computed of kinds, and of how often each occurs, is what would be computed of the clusters one by one, in far
less time. That goes for the bootstrap too: drawing clusters with replacement draws kinds by a multinomial.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from roslin.statistics.resample import RESAMPLES, Floats, Ints

_BLOCK = 1000


@dataclass(frozen=True)
class Tally:
    """K kinds of clusters, with the successes of M measurements (models, say) of the same units."""

    units_K: Ints
    """Units in a cluster of the kind."""
    successes_KM: Ints
    """Successes in a cluster of the kind, by measurement."""
    clusters_K: Ints
    """Clusters of the kind."""

    @classmethod
    def of_counts(cls, successes: int, trials: int) -> "Tally":
        """One measurement of which only the counts are known: each unit is a cluster of its own.

        Raises ValueError where there are no trials, or more successes than trials.
        """
        if not 0 <= successes <= trials or trials == 0:
            raise ValueError(f"{successes} successes of {trials} trials is no share")
        return cls(np.array([1, 1]), np.array([[0], [1]]), np.array([trials - successes, successes]))

    @classmethod
    def of_outcomes(cls, clusters: Sequence[str], *outcomes: ArrayLike) -> "Tally":
        """Measurements of the same units: the cluster of each unit, and for each measurement whether it succeeded.

        Raises ValueError where there are no units, or lists of other lengths.
        """
        success_MN = np.array([np.asarray(outcome, dtype=np.int64) for outcome in outcomes])
        if success_MN.shape != (len(outcomes), len(clusters)) or success_MN.size == 0:
            raise ValueError(f"need outcomes for each of {len(clusters)} units, got shape {success_MN.shape}")
        _, place_N = np.unique(np.asarray(clusters), return_inverse=True)
        rows_VN = np.vstack([np.ones_like(success_MN[:1]), success_MN])
        summed_CV = np.array([np.bincount(place_N, weights=row_N) for row_N in rows_VN]).T.astype(np.int64)
        kinds_KV, clusters_K = np.unique(summed_CV, axis=0, return_counts=True)
        return cls(kinds_KV[:, 0], kinds_KV[:, 1:], clusters_K)

    @property
    def units(self) -> int:
        """How many units there are."""
        return int(self.units_K @ self.clusters_K)

    @property
    def clusters(self) -> int:
        """How many clusters there are."""
        return int(self.clusters_K.sum())

    @property
    def totals_M(self) -> Ints:
        """Successes by measurement."""
        return np.asarray(self.clusters_K @ self.successes_KM)

    @property
    def shares_M(self) -> Floats:
        """Share of successes by measurement."""
        return self.totals_M / self.units

    @property
    def residuals_KM(self) -> Floats:
        """What a cluster adds to the error of each share, linearised: (successes - share × units) / all units.

        A share of units in clusters is a ratio of sums over clusters (Cochran 1977, Sampling Techniques, section 3.12).
        """
        return (self.successes_KM - self.units_K[:, None] * self.shares_M) / self.units

    def variance(self, residuals_K: Floats) -> float:
        """Variance of a sum over clusters of residuals with mean 0; nan where a single cluster cannot tell it.

        C / (C - 1) × the sum of their squares over all C clusters. Where each unit is a cluster of its own, that of a
        share p of N is p (1 - p) / (N - 1). With clusters fewer than about 30, it tends to be too small.
        """
        if self.clusters < 2:
            return math.nan
        return self.clusters / (self.clusters - 1) * float(self.clusters_K @ residuals_K**2)

    def resampled_shares(self, rng: np.random.Generator) -> Floats:
        """Shares [RESAMPLES, M] of as many clusters, drawn with replacement."""
        chances_K = self.clusters_K / self.clusters
        shares = []
        for _ in range(RESAMPLES // _BLOCK):  # so that memory stays small
            drawn_BK = rng.multinomial(self.clusters, chances_K, size=_BLOCK)
            shares.append((drawn_BK @ self.successes_KM) / (drawn_BK @ self.units_K)[:, None])
        return np.concatenate(shares)
