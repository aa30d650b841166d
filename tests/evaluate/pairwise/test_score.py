"""The score of filled sheets, against values worked by hand."""

import math
from collections.abc import Mapping

import numpy as np
import orjson
import pytest

from pairwise_played import key_of
from roslin.errors import InputError
from roslin.evaluate.pairwise import Choice, Filled, Key, Verdict, score


def filled(key: Key, judge: str, choices: Mapping[int, Choice | None]) -> Filled:
    return Filled(sheet=key.sheet, judge=judge, verdicts=tuple(Verdict(item=n, choice=c) for n, c in choices.items()))


def wilson(share: float, trials: int) -> tuple[float, float]:
    """As the solutions p of (share - p)^2 = z^2 p (1 - p) / trials."""
    z2 = 1.959963984540054**2 / trials
    low, high = sorted(np.roots([1 + z2, -(2 * share + z2), share**2]).real)
    return low, high


def test_one_judge_by_hand() -> None:
    key = key_of("abab", ["x", "x", "y", "y"])
    found = score(key, [filled(key, "Ann", {1: "left", 2: "left", 3: "right", 4: "tie"})])
    assert (found.model_a, found.model_b, found.pairs, found.unanswered) == ("first", "second", 4, 0)
    overall = found.overall
    assert (overall.wins, overall.losses, overall.ties, overall.both_bad, overall.pairs) == (1, 2, 1, 0, 4)
    assert overall.win_rate is not None
    assert overall.win_rate.estimate == 0.375
    assert (overall.win_rate.low, overall.win_rate.high) == pytest.approx(wilson(0.375, 4))
    assert overall.bootstrap is None, "four pairs are too few to resample"
    assert (overall.pairs_won, overall.pairs_lost, overall.sign_test) == (1, 2, 1.0)
    x, y = found.by_category["x"], found.by_category["y"]
    assert (x.wins, x.losses, x.ties) == (1, 1, 0)
    assert (y.wins, y.losses, y.ties) == (0, 1, 1)
    [judge] = found.judges
    assert judge.left is not None
    assert judge.left.estimate == pytest.approx(2 / 3)
    assert (judge.left.low, judge.left.high) == pytest.approx(wilson(2 / 3, 3))
    assert judge.orders is None
    assert (found.agreement, found.agreement_of_all) == ((), None)


def test_both_bad_is_a_tie_that_is_told_apart() -> None:
    key = key_of("ab")
    overall = score(key, [filled(key, "Ann", {1: "both_bad", 2: "right"})]).overall
    assert (overall.ties, overall.both_bad, overall.wins) == (0, 1, 1)
    assert overall.win_rate is not None
    assert overall.win_rate.estimate == 0.75


def test_what_is_not_answered_is_counted_and_left_out() -> None:
    key = key_of("aaaa", ["x", "x", "y", "z"])
    found = score(key, [filled(key, "Ann", {1: "left", 2: None}), filled(key, "Bo", {1: "left", 3: "right"})])
    assert found.unanswered == 2
    assert [judge.unanswered for judge in found.judges] == [3, 2]
    assert (found.overall.pairs, found.overall.wins, found.overall.losses) == (2, 2, 1)
    assert (found.by_category["z"].pairs, found.by_category["z"].win_rate) == (0, None)
    with pytest.raises(InputError, match="nothing to score"):
        score(key, [filled(key, "Ann", {2: None})])


def test_several_judges_of_a_pair_count_as_one_pair() -> None:
    """Pair 1: 2/3 for a; pair 2: 1/2; pair 3: 0. Mean 7/18 of three pairs, however many judged them."""
    key = key_of("aba")
    ann = filled(key, "Ann", {1: "left", 2: "right", 3: "right"})
    bo = filled(key, "Bo", {1: "left", 2: "left", 3: "right"})
    cy = filled(key, "Cy", {1: "right", 3: "right"})
    found = score(key, [ann, bo, cy])
    overall = found.overall
    assert (overall.wins, overall.losses) == (3, 5)
    assert overall.win_rate is not None
    assert overall.win_rate.estimate == pytest.approx(7 / 18)
    assert (overall.win_rate.low, overall.win_rate.high) == pytest.approx(wilson(7 / 18, 3))
    assert (overall.pairs_won, overall.pairs_lost) == (1, 1)
    by_judges = {agreement.judges: agreement for agreement in found.agreement}
    assert by_judges["Ann", "Bo"].share == pytest.approx(2 / 3)
    # Ann says a a b, Bo a b b: p_e = 2/3 * 1/3 + 1/3 * 2/3 = 4/9, kappa = (2/3 - 4/9) / (5/9).
    assert by_judges["Ann", "Bo"].kappa == pytest.approx(0.4)
    assert by_judges["Ann", "Cy"].items == 2
    assert found.agreement_of_all is not None
    # On pairs 1 and 3: rows a a b and b b b. Observed (1/3 + 1) / 2, expected (2/6)^2 + (4/6)^2.
    assert found.agreement_of_all.items == 2
    assert found.agreement_of_all.kappa == pytest.approx((2 / 3 - 5 / 9) / (4 / 9))


def test_the_bootstrap_resamples_pairs() -> None:
    key = key_of("a" * 40)
    choices: dict[int, Choice | None] = {n: "left" if n <= 25 else "tie" if n <= 30 else "right" for n in range(1, 41)}
    found = score(key, [filled(key, "Ann", choices)]).overall.bootstrap
    shares = np.array([1.0] * 25 + [0.5] * 5 + [0.0] * 10)
    means = np.random.default_rng(5).choice(shares, (20_000, 40)).mean(axis=1)
    assert found is not None
    assert found.estimate == pytest.approx(27.5 / 40)
    assert [found.low, found.high] == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.013)


def judged_twice(key: Key, orders: Mapping[int, tuple[Choice, Choice]]) -> Filled:
    verdicts = tuple(
        Verdict(item=n, choice=pair[0] if pair[0] == pair[1] else "tie", orders=pair) for n, pair in orders.items()
    )
    return Filled(sheet=key.sheet, judge="model", verdicts=verdicts)


def test_a_judge_that_takes_the_first_is_found_out() -> None:
    key = key_of("ab" * 6)
    found = score(key, [judged_twice(key, dict.fromkeys(range(1, 13), ("left", "right")))])
    orders = found.judges[0].orders
    assert orders is not None
    assert orders.first is not None
    assert (orders.inconsistent.estimate, orders.first.estimate) == (1.0, 1.0)
    assert (orders.first.low, orders.first.high) == pytest.approx(wilson(1.0, 12))
    assert (found.overall.ties, found.overall.sign_test) == (12, 1.0)
    assert found.judges[0].left is None, "no side was chosen"


def test_orders_by_hand() -> None:
    """Shares of the first: 1/2 (true to an answer), 0 (the second twice), 0 (a tie, then the second), none (ties)."""
    key = key_of("aaaa")
    given: dict[int, tuple[Choice, Choice]] = {
        1: ("left", "left"),
        2: ("right", "left"),
        3: ("tie", "left"),
        4: ("both_bad", "both_bad"),
    }
    orders = score(key, [judged_twice(key, given)]).judges[0].orders
    assert orders is not None
    assert orders.first is not None
    assert (orders.pairs, orders.inconsistent.estimate) == (4, 0.5)
    assert orders.first.estimate == pytest.approx(0.5 / 3)


def test_a_score_is_json_without_nan() -> None:
    key = key_of("a", ["x"])
    found = orjson.loads(orjson.dumps(score(key, [filled(key, "Ann", {1: "tie"})])))
    assert found["overall"]["win_rate"]["estimate"] == 0.5
    assert found["judges"][0]["left"] is None
    assert math.isclose(found["by_category"]["x"]["sign_test"], 1.0)
