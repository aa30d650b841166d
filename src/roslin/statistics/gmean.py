"""The geometric mean of shares: its interval, and whether two of them differ."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from roslin.statistics.interval import Interval, Z, normal_interval, normal_p
from roslin.statistics.resample import RESAMPLES, Floats, percentile_interval
from roslin.statistics.tally import Tally


@dataclass(frozen=True)
class GeometricMean:
    """A geometric mean of shares of different units; no errors are known where a share is 0 or 1, or of one cluster."""

    estimate: float
    error: float | None
    """Standard error by the delta method."""
    delta: Interval | None
    """By the delta method on the logarithm, which keeps it above 0."""
    bootstrap: Interval | None
    """Percentiles over clusters drawn anew within each share (stratified)."""


@dataclass(frozen=True)
class GeometricDifference:
    """The second geometric mean less the first.

    No interval is known where a share is 0 or 1, or of one cluster, or where paired measurements are alike throughout.
    """

    estimate: float
    error: float | None
    delta: Interval | None
    bootstrap: Interval | None
    p: float | None
    """Two-sided, by the delta method's standard error."""


def gmean(shares: Sequence[float]) -> float:
    """The geometric mean; 0 where a share is 0."""
    if min(shares) <= 0:
        return 0.0
    return math.exp(math.fsum(map(math.log, shares)) / len(shares))


def gmean_of(tallies: Sequence[Tally], *, seed: int = 0) -> GeometricMean:
    """The geometric mean of the shares of tallies of one measurement each.

    Delta method: the variance of the mean logarithm of K shares is the sum of variance / share² over them, by K². It
    allows for clusters as the tallies do.
    """
    estimate = _gmeans(tallies)[0]
    if not all(map(_is_open, tallies)):
        return GeometricMean(estimate, None, None, None)
    log_error = math.sqrt(_log_variance(tallies))
    low, high = (estimate * math.exp(sign * Z * log_error) for sign in (-1, 1))
    drawn = percentile_interval(estimate, _resampled(tallies, np.random.default_rng(seed))[:, 0])
    return GeometricMean(estimate, estimate * log_error, Interval(estimate, low, high), drawn)


def gmean_difference(first: Sequence[Tally], second: Sequence[Tally], *, seed: int = 0) -> GeometricDifference:
    """Second less first, of different units or of counts only: their errors are taken as independent."""
    means = [_gmeans(tallies)[0] for tallies in (first, second)]
    estimate = means[1] - means[0]
    if not all(map(_is_open, (*first, *second))):
        return GeometricDifference(estimate, None, None, None, None)
    error = math.hypot(*(mean * math.sqrt(_log_variance(t)) for mean, t in zip(means, (first, second), strict=True)))
    rng = np.random.default_rng(seed)
    drawn = _resampled(second, rng)[:, 0] - _resampled(first, rng)[:, 0]
    return _difference(estimate, error, drawn)


def paired_gmean_difference(tallies: Sequence[Tally], *, seed: int = 0) -> GeometricDifference:
    """Second less first of tallies of two measurements of the same units, whose errors go together.

    Delta method: what a cluster adds to the difference is mean × residual / share for each measurement, by K.
    """
    means = _gmeans(tallies)
    estimate = means[1] - means[0]
    if not all(map(_is_open, tallies)):
        return GeometricDifference(estimate, None, None, None, None)
    variance = 0.0
    for tally in tallies:
        added_KM = tally.residuals_KM / tally.shares_M * means / len(tallies)
        variance += tally.variance(added_KM[:, 1] - added_KM[:, 0])
    if variance == 0:
        return GeometricDifference(estimate, 0.0, None, None, normal_p(estimate, 0.0))
    drawn_RM = _resampled(tallies, np.random.default_rng(seed))
    return _difference(estimate, math.sqrt(variance), drawn_RM[:, 1] - drawn_RM[:, 0])


def _difference(estimate: float, error: float, drawn_R: Floats) -> GeometricDifference:
    return GeometricDifference(
        estimate,
        error,
        normal_interval(estimate, error),
        percentile_interval(estimate, drawn_R),
        normal_p(estimate, error),
    )


def _is_open(tally: Tally) -> bool:
    """Whether the delta method and resampling can tell an error: shares above 0 and below 1, of several clusters."""
    return tally.clusters > 1 and all(0 < total < tally.units for total in tally.totals_M.tolist())


def _gmeans(tallies: Sequence[Tally]) -> list[float]:
    """The geometric mean of each measurement."""
    return [gmean(shares) for shares in zip(*(tally.shares_M.tolist() for tally in tallies), strict=True)]


def _log_variance(tallies: Sequence[Tally]) -> float:
    relative = (tally.variance(tally.residuals_KM[:, 0] / tally.shares_M[0]) for tally in tallies)
    return math.fsum(relative) / len(tallies) ** 2


def _resampled(tallies: Sequence[Tally], rng: np.random.Generator) -> Floats:
    """Geometric means [RESAMPLES, M] of shares whose clusters were drawn anew within each tally."""
    logs_RM: Floats = np.zeros((RESAMPLES, len(tallies[0].shares_M)))
    with np.errstate(divide="ignore"):  # a drawn share of 0 makes the mean 0
        for tally in tallies:
            logs_RM += np.log(tally.resampled_shares(rng))
    return np.asarray(np.exp(logs_RM / len(tallies)))
