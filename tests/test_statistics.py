"""Intervals and tests against hand-worked values, published examples, full enumeration and simulated coverage."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from roslin.statistics import (
    Tally,
    gmean,
    gmean_difference,
    gmean_of,
    holm,
    paired_difference,
    paired_gmean_difference,
    paired_ratio_difference,
    ratio_interval,
    share_difference,
    share_difference_p,
    share_of,
    sign_flip_p,
    wilson_interval,
)


def counts(successes: int, trials: int) -> Tally:
    return Tally.of_counts(successes, trials)


def single(*outcomes: Sequence[int]) -> Tally:
    """Each unit a cluster of its own."""
    return Tally.of_outcomes([str(unit) for unit in range(len(outcomes[0]))], *outcomes)


def discordant(first_only: int, second_only: int, both: int = 5) -> Tally:
    return single([1] * first_only + [0] * second_only + [1] * both, [0] * first_only + [1] * second_only + [1] * both)


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
    sizes = rng.integers(5, 50, size=80)
    before = sizes * rng.normal(4, 0.8, size=80)
    after = before - sizes * rng.normal(0.3, 0.05, size=80)
    change = paired_ratio_difference(before, after, sizes)
    assert change.high < 0
    assert change.estimate == pytest.approx((after.sum() - before.sum()) / sizes.sum())
    alone = ratio_interval(before, sizes)
    assert change.high - change.low < (alone.high - alone.low) / 3


def test_coverage_of_the_bootstrap() -> None:
    """In repeated draws the 95 % interval holds the truth about 95 times in 100."""
    rng = np.random.default_rng(3)
    held = 0
    for draw in range(100):
        sizes = rng.integers(1, 30, size=60)
        found = ratio_interval(sizes * rng.normal(2.0, 0.5, size=60), sizes, seed=draw)
        held += found.low <= 2.0 <= found.high
    assert 88 <= held <= 99


def test_unequal_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="equally long"):
        ratio_interval([1.0], [1, 2])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_tally_counts_clusters_by_kind() -> None:
    found = Tally.of_outcomes(["a", "b", "a", "c", "c"], [1, 0, 1, 0, 1], [1, 1, 0, 1, 0])
    kinds = zip(found.units_K.tolist(), found.successes_KM.tolist(), found.clusters_K.tolist(), strict=True)
    assert list(kinds) == [(1, [0, 1], 1), (2, [1, 1], 1), (2, [2, 1], 1)]
    assert (found.units, found.clusters, found.totals_M.tolist()) == (5, 3, [3, 3])
    with pytest.raises(ValueError, match="2 units"):
        Tally.of_outcomes(["a", "b"], [1])
    with pytest.raises(ValueError, match="0 units"):
        Tally.of_outcomes([], [])
    for successes, trials in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="no share"):
            counts(successes, trials)


def test_a_share_of_single_units_has_its_plain_interval() -> None:
    found = share_of(counts(174, 500))
    assert found.interval == wilson_interval(174, 500)
    assert found == share_of(single([1] * 174 + [0] * 326))
    assert found.error == pytest.approx(math.sqrt(0.348 * 0.652 / 499))
    assert found.design_effect == 1


def test_a_clustered_share_by_hand() -> None:
    # 2 of 2, 0 of 1, 1 of 3: the share is 1/2, residuals 1, -1/2 and -1/2 of 6; 3/2 × 1.5 / 36 = 1/16.
    found = share_of(Tally.of_outcomes(list("aabccc"), [1, 1, 0, 1, 0, 0]))
    assert found.error == pytest.approx(1 / 4)
    assert found.design_effect == pytest.approx((1 / 16) / (1 / 4 / 5))
    assert found.effective == pytest.approx(6 / 1.25)
    wanted = wilson_interval(2.4, 4.8)
    assert (found.interval.low, found.interval.high) == pytest.approx((wanted.low, wanted.high))


def test_units_asked_twice_count_once() -> None:
    right = [1] * 60 + [0] * 40
    twice = share_of(Tally.of_outcomes([str(unit % 100) for unit in range(200)], right * 2))
    assert twice.design_effect == pytest.approx(199 / 99)
    assert twice.interval.half_width == pytest.approx(wilson_interval(60, 100).half_width, rel=0.01)


def test_unlike_units_of_a_cluster_make_no_interval_narrower() -> None:
    found = share_of(Tally.of_outcomes([str(unit // 2) for unit in range(100)], [1, 0] * 50))
    assert found.design_effect == 0
    assert found.interval == wilson_interval(50, 100)


def test_clusters_of_which_all_succeed_are_taken_as_alike() -> None:
    found = share_of(Tally.of_outcomes(list("aaabb"), [1] * 5))
    assert found.effective == pytest.approx(25 / 13)
    assert found.interval.high == pytest.approx(1)
    assert found.interval.low == pytest.approx(wilson_interval(25 / 13, 25 / 13).low)
    assert math.isnan(found.design_effect)
    alone = share_of(Tally.of_outcomes(list("aaa"), [1, 0, 1]))
    assert alone.effective == 1
    assert math.isnan(alone.error)


def test_coverage_of_a_clustered_share() -> None:
    """Clusters with chances of their own: the interval that knows of them holds the truth, the plain one too seldom."""
    rng = np.random.default_rng(4)
    labels = [str(unit // 4) for unit in range(400)]
    held = plain = 0
    for _ in range(400):
        right = (rng.random(400) < np.repeat(rng.beta(1.2, 0.8, size=100), 4)).astype(int)
        found, simple = share_of(Tally.of_outcomes(labels, right)).interval, wilson_interval(int(right.sum()), 400)
        held += found.low <= 0.6 <= found.high
        plain += simple.low <= 0.6 <= simple.high
    assert 365 <= held <= 395
    assert plain < 350


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [((48, 80), (56, 70), 0.0524, 0.3339), ((3, 10), (9, 10), 0.1705, 0.8090), ((0, 10), (10, 10), 0.6075, 1.0)],
)
def test_examples_of_newcombes_paper(first: tuple[int, int], second: tuple[int, int], low: float, high: float) -> None:
    found = share_difference(share_of(counts(*first)), share_of(counts(*second)))
    assert found.estimate == pytest.approx(second[0] / second[1] - first[0] / first[1])
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_two_shares_by_chi_squared() -> None:
    # (N - 1) (ad - bc)² / (product of the four margins)
    chi_squared = 149 * (48 * 14 - 32 * 56) ** 2 / (80 * 70 * 104 * 46)
    found = share_difference_p(share_of(counts(48, 80)), share_of(counts(56, 70)))
    assert found == pytest.approx(math.erfc(math.sqrt(chi_squared / 2)))
    assert share_difference_p(share_of(counts(5, 5)), share_of(counts(9, 9))) == 1


def test_the_level_of_two_shares_by_enumeration() -> None:
    """Of all outcomes of 25 and 40 tries of the same chance, about 5 % by weight are called a difference."""
    for chance in (0.3, 0.5, 0.8):
        wrong = 0.0
        for first, second in itertools.product(range(26), range(41)):
            weight = math.comb(25, first) * math.comb(40, second)
            weight *= chance ** (first + second) * (1 - chance) ** (65 - first - second)
            wrong += weight * (share_difference_p(share_of(counts(first, 25)), share_of(counts(second, 40))) <= 0.05)
        assert 0.035 < wrong < 0.06


def test_a_known_design_effect_widens_counts() -> None:
    plain, wide = share_of(counts(2000, 3000)), share_of(counts(2000, 3000), design_effect=1.5)
    assert wide.effective == 2000
    assert wide.interval.half_width == pytest.approx(plain.interval.half_width * math.sqrt(1.5), rel=1e-3)


def test_mcnemars_mid_p_by_hand() -> None:
    # 10 against 3 of 13: twice (1 + 13 + 78), and 286 once, of 8192.
    assert sign_flip_p(discordant(10, 3)) == pytest.approx((2 * 92 + 286) / 8192)
    assert sign_flip_p(discordant(3, 10)) == pytest.approx(470 / 8192)
    assert sign_flip_p(discordant(4, 4)) == pytest.approx(1 - 70 / 256 / 2)
    assert sign_flip_p(discordant(0, 0)) == 1
    assert sign_flip_p(discordant(0, 1)) == 0.5
    assert sign_flip_p(discordant(2000, 100)) < 1e-300


def test_the_level_of_mcnemars_mid_p_by_enumeration() -> None:
    """Of 50 units, some decided differently by a fair coin, at most 5 in 100 draws are called a difference."""
    rejected = []
    for decided in range(51):
        firsts = [first for first in range(decided + 1) if sign_flip_p(discordant(first, decided - first)) <= 0.05]
        rejected.append(sum(math.comb(decided, first) for first in firsts) / 2**decided)
    for rate in (0.1, 0.2, 0.4, 0.8):
        chances = [math.comb(50, decided) * rate**decided * (1 - rate) ** (50 - decided) for decided in range(51)]
        assert sum(map(math.prod, zip(chances, rejected, strict=True))) < 0.052


def test_signs_of_clusters_against_all_of_them() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        labels = [str(label) for label in rng.integers(0, 9, size=25)]
        first, second = rng.integers(0, 2, size=(2, 25))
        by_cluster = dict.fromkeys(labels, 0)
        for label, difference in zip(labels, second - first, strict=True):
            by_cluster[label] += int(difference)
        seen = abs(sum(by_cluster.values()))
        all_signs = itertools.product(*((value, -value) for value in by_cluster.values()))
        sums = [abs(sum(values)) for values in all_signs]
        wanted = sum((total > seen) + (total == seen) / 2 for total in sums) / len(sums)
        found = sign_flip_p(Tally.of_outcomes(labels, first, second))
        assert found == pytest.approx(wanted if any(by_cluster.values()) else 1.0)


def test_signs_of_many_clusters_are_obuchowskis_test() -> None:
    rng = np.random.default_rng(11)
    labels = rng.integers(0, 900, size=3000)
    first, second = rng.random(3000) < 0.5, rng.random(3000) < 0.53
    sums = np.bincount(labels, weights=second.astype(int) - first.astype(int))
    chi_squared = sums.sum() ** 2 / (sums**2).sum()
    found = sign_flip_p(Tally.of_outcomes([str(label) for label in labels], first, second))
    assert found == pytest.approx(math.erfc(math.sqrt(chi_squared / 2)), rel=0.05)


def test_a_paired_difference_of_shares() -> None:
    found = paired_difference(discordant(60, 30, both=410))
    error = math.sqrt((90 - 30**2 / 500) / 500**2)  # of a mean of -1, 0 and 1
    assert found.estimate == pytest.approx(-0.06)
    assert (found.low, found.high) == pytest.approx((-0.06 - 1.96 * error, -0.06 + 1.96 * error), abs=0.003)


def test_where_nothing_is_decided_much_is_open() -> None:
    found = paired_difference(discordant(0, 0, both=50))
    assert found.estimate == 0
    assert (found.low, found.high) == pytest.approx((-3 / 52, 3 / 52))
    one = paired_difference(discordant(1, 0, both=399))
    assert one.low < -0.005
    assert one.high > 0.002


def test_coverage_of_a_paired_difference_that_is_decided_seldom() -> None:
    rng = np.random.default_rng(10)
    held = 0
    for _ in range(400):
        first_only, second_only, both = rng.multinomial(200, [0.02, 0.01, 0.97]).tolist()
        found = paired_difference(discordant(first_only, second_only, both))
        held += found.low <= -0.01 <= found.high
    assert 372 <= held <= 398


def test_clusters_widen_a_paired_difference() -> None:
    first, second = [1] * 60 + [0] * 30 + [1] * 410, [0] * 60 + [1] * 30 + [1] * 410
    fives = Tally.of_outcomes([str(unit // 5) for unit in range(500)], first, second)
    assert paired_difference(fives).half_width > 2 * paired_difference(single(first, second)).half_width
    assert sign_flip_p(fives) > 20 * sign_flip_p(single(first, second))


def test_a_geometric_mean_and_its_error_by_hand() -> None:
    found = gmean_of([counts(50, 101), counts(20, 26)])
    p, q = 50 / 101, 20 / 26
    log_error = math.sqrt((1 - p) / p / 100 + (1 - q) / q / 25) / 2
    assert found.estimate == pytest.approx(math.sqrt(p * q)) == gmean([p, q])
    assert found.error == pytest.approx(found.estimate * log_error)
    assert found.delta
    assert found.delta.low == pytest.approx(found.estimate * math.exp(-1.959964 * log_error))
    assert found.delta.high == pytest.approx(found.estimate * math.exp(1.959964 * log_error))


def test_the_error_of_a_geometric_mean_is_that_of_drawn_ones() -> None:
    rng = np.random.default_rng(6)
    sizes, chances = np.array([100, 400, 250]), np.array([0.35, 0.6, 0.8])
    drawn = np.exp(np.log(rng.binomial(sizes, chances, size=(100_000, 3)) / sizes).mean(axis=1))
    found = gmean_of([counts(round(n * p), n) for n, p in zip(sizes.tolist(), chances.tolist(), strict=True)])
    assert found.error == pytest.approx(drawn.std(), rel=0.02)
    assert found.bootstrap
    assert (found.bootstrap.low, found.bootstrap.high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.002)
    again = gmean_of([counts(35, 100), counts(240, 400), counts(200, 250)])
    assert again == found


def test_coverage_of_a_geometric_mean() -> None:
    rng = np.random.default_rng(7)
    sizes, chances = [60, 200, 120], [0.35, 0.6, 0.8]
    truth = gmean(chances)
    delta = bootstrap = 0
    for _ in range(400):
        found = gmean_of([counts(int(rng.binomial(n, p)), n) for n, p in zip(sizes, chances, strict=True)])
        assert found.delta
        assert found.bootstrap
        delta += found.delta.low <= truth <= found.delta.high
        bootstrap += found.bootstrap.low <= truth <= found.bootstrap.high
    assert 368 <= delta <= 394
    assert 364 <= bootstrap <= 394


def test_no_error_is_told_where_the_logarithm_has_none() -> None:
    zero = gmean_of([counts(0, 10), counts(5, 10)])
    assert (zero.estimate, zero.error, zero.delta, zero.bootstrap) == (0, None, None, None)
    assert gmean_of([counts(10, 10), counts(5, 10)]).delta is None
    assert gmean_of([Tally.of_outcomes(["a", "a"], [0, 1]), counts(5, 10)]).delta is None
    assert gmean_difference([counts(5, 10)], [counts(0, 10)]).p is None
    assert paired_gmean_difference([single([0, 0], [0, 1])]).p is None


def test_two_geometric_means_by_hand() -> None:
    first, second = [counts(50, 101), counts(20, 26)], [counts(60, 101), counts(21, 26)]
    found = gmean_difference(first, second)
    before, after = gmean_of(first), gmean_of(second)
    assert before.error
    assert after.error
    error = math.hypot(before.error, after.error)
    assert found.estimate == pytest.approx(after.estimate - before.estimate)
    assert found.error == pytest.approx(error)
    assert found.p == pytest.approx(math.erfc(found.estimate / error / math.sqrt(2)))


def slow_paired_bootstrap(tasks: Sequence[NDArray[np.int64]], resamples: int) -> NDArray[np.float64]:
    """Differences of geometric means of units drawn one by one; each task is [2, units]."""
    rng = np.random.default_rng(8)
    found = []
    for _ in range(resamples):
        drawn = [right_2N[:, rng.integers(0, right_2N.shape[1], right_2N.shape[1])].mean(axis=1) for right_2N in tasks]
        first, second = np.exp(np.log(drawn).mean(axis=0))
        found.append(second - first)
    return np.array(found)


def test_paired_geometric_means_against_a_slow_bootstrap() -> None:
    rng = np.random.default_rng(9)
    tasks = []
    for size, chance in ((150, 0.4), (300, 0.6), (200, 0.75)):
        first = rng.random(size) < chance
        second = np.where(rng.random(size) < 0.85, first, rng.random(size) < chance + 0.1)
        tasks.append(np.array([first, second]).astype(np.int64))
    drawn = slow_paired_bootstrap(tasks, 3000)
    tallies = [single(*right_2N.tolist()) for right_2N in tasks]
    found = paired_gmean_difference(tallies)
    assert found.error == pytest.approx(drawn.std(), rel=0.05)
    assert found.bootstrap
    assert (found.bootstrap.low, found.bootstrap.high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.004)
    unpaired = gmean_difference([single(t[0].tolist()) for t in tasks], [single(t[1].tolist()) for t in tasks])
    assert unpaired.estimate == pytest.approx(found.estimate)
    assert unpaired.error
    assert found.error < unpaired.error


def test_a_model_does_not_differ_from_itself() -> None:
    found = paired_gmean_difference([single([0, 1, 1], [0, 1, 1]), single([1, 0], [1, 0])])
    assert (found.estimate, found.error, found.p) == (0, 0, 1)
    assert (found.delta, found.bootstrap) == (None, None)
