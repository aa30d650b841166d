"""Intervals against hand-worked values, known limits and simulated coverage."""

import math

import numpy as np
import pytest

from roslin.statistics import paired_ratio_difference, ratio_interval, wilson_interval


def test_wilson_by_hand() -> None:
    # 95 of 100, z = 1.96: centre (0.95 + 0.019208) / 1.038415, half-width by the formula.
    found = wilson_interval(95, 100)
    assert found.estimate == 0.95
    assert found.low == pytest.approx(0.8882, abs=1e-4)
    assert found.high == pytest.approx(0.9785, abs=1e-4)


def test_wilson_at_the_edges() -> None:
    assert wilson_interval(0, 10).low == 0
    assert wilson_interval(10, 10).high == pytest.approx(1)
    assert wilson_interval(10, 10).low < 1
    with pytest.raises(ValueError, match="no share"):
        wilson_interval(0, 0)


def test_a_ratio_weighs_by_count() -> None:
    assert ratio_interval([2.0, 30.0], [1, 10]).estimate == pytest.approx(32 / 11)


def test_the_bootstrap_matches_the_normal_interval_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(5, 2, size=400)
    found = ratio_interval(values, np.ones(400))
    half = 1.96 * values.std(ddof=1) / math.sqrt(400)
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)


def test_a_paired_difference_is_surer_than_two_intervals() -> None:
    rng = np.random.default_rng(2)
    counts = rng.integers(5, 50, size=80)
    before = counts * rng.normal(4, 0.8, size=80)
    after = before - counts * rng.normal(0.3, 0.05, size=80)
    change = paired_ratio_difference(before, after, counts)
    assert change.high < 0
    assert change.estimate == pytest.approx((after.sum() - before.sum()) / counts.sum())
    alone = ratio_interval(before, counts)
    assert change.high - change.low < (alone.high - alone.low) / 3


def test_coverage_of_the_bootstrap() -> None:
    """In repeated draws the 95 % interval holds the truth about 95 times in 100."""
    rng = np.random.default_rng(3)
    held = 0
    for draw in range(100):
        counts = rng.integers(1, 30, size=60)
        found = ratio_interval(counts * rng.normal(2.0, 0.5, size=60), counts, seed=draw)
        held += found.low <= 2.0 <= found.high
    assert 88 <= held <= 99


def test_unequal_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="equally long"):
        ratio_interval([1.0], [1, 2])
