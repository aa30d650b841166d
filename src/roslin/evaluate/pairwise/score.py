"""The score of a sheet: how often each model won, how sure that is, and how far its judges can be trusted.

The unit is the pair, not the verdict: several judges of the same pairs say less than as many judges of other pairs. A
pair's share is the mean over its judges of 1 (model a won), 0 (model b won) and 1/2 (tie, or both bad).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from roslin.errors import InputError
from roslin.evaluate.pairwise.agreement import Agreement, cohen, fleiss
from roslin.evaluate.pairwise.filled import Filled
from roslin.evaluate.pairwise.key import Item, Key
from roslin.evaluate.pairwise.sign_test import sign_test
from roslin.evaluate.pairwise.verdict import MIRRORED, Choice, Verdict
from roslin.statistics import Interval, ratio_interval, wilson_interval

Outcome = Literal["a", "b", "tie", "both_bad"]
SHARES: Mapping[Outcome, float] = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}
FEWEST_TO_RESAMPLE = 10
"""Below this many pairs a bootstrap interval is far too narrow; of one pair it has no width at all."""


@dataclass(frozen=True)
class Standing:
    """How model a fares against model b. Counts are of verdicts, everything else is of pairs."""

    wins: int
    losses: int
    ties: int
    both_bad: int
    pairs: int
    """Pairs with a verdict."""
    win_rate: Interval | None
    """Mean share of the pairs, with Wilson's interval at that share and number; None without a verdict.

    Where shares are not all 0 or 1 they spread less than wins and losses, so the interval is rather too wide.
    """
    bootstrap: Interval | None
    """The same, resampling pairs; None below FEWEST_TO_RESAMPLE pairs."""
    pairs_won: int
    """Pairs whose share is above 1/2: those that most of the judges who decided gave to a."""
    pairs_lost: int
    sign_test: float
    """Exact two-sided p of `pairs_won` against `pairs_lost`, pairs at 1/2 left out."""


@dataclass(frozen=True)
class Orders:
    """A judge that was asked in both orders: how far the order decided."""

    pairs: int
    inconsistent: Interval
    """Share of the pairs whose verdict changed with the order; they count as ties."""
    first: Interval | None
    """How often the answer shown first was preferred, of the times when one was; 1/2 is fair."""


@dataclass(frozen=True)
class JudgeScore:
    """What one judge found."""

    judge: str
    standing: Standing
    unanswered: int
    left: Interval | None
    """How often left was chosen, of the times when a side was; 1/2 is fair, for each model stands on each side."""
    orders: Orders | None


@dataclass(frozen=True)
class Score:
    """All that the filled files of a sheet say."""

    model_a: str
    model_b: str
    sheet: str
    pairs: int
    unanswered: int
    """Pairs that no judge has judged."""
    identical: int
    """Pairs whose two answers are the same text."""
    overall: Standing
    by_category: dict[str, Standing]
    judges: tuple[JudgeScore, ...]
    agreement: tuple[Agreement, ...]
    """Of each two judges with pairs in common, by Cohen's kappa."""
    agreement_of_all: Agreement | None
    """Of three judges or more, on the pairs that all have judged, by Fleiss' kappa."""


def score(key: Key, filled: Sequence[Filled]) -> Score:
    """Score filled files that `read_filled` has checked. Raises InputError when they hold no verdict at all."""
    given = {one.judge: _outcomes(key, one.verdicts) for one in filled}
    if not any(given.values()):
        raise InputError("No pair has been judged yet in these files; there is nothing to score.")
    by_pair = {
        item.pair.number: [found[item.pair.number] for found in given.values() if item.pair.number in found]
        for item in key.items
    }
    return Score(
        model_a=key.model_a,
        model_b=key.model_b,
        sheet=key.sheet,
        pairs=len(key.items),
        unanswered=sum(not outcomes for outcomes in by_pair.values()),
        identical=sum(pair.left == pair.right for pair in key.pairs),
        overall=_standing(by_pair.values()),
        by_category={
            name: _standing(by_pair[item.pair.number] for item in key.items if item.category == name)
            for name in sorted({item.category for item in key.items})
        },
        judges=tuple(_judge_score(key, one, given[one.judge]) for one in filled),
        agreement=tuple(_agreements(given)),
        agreement_of_all=_agreement_of_all(given),
    )


def _outcomes(key: Key, verdicts: Iterable[Verdict]) -> dict[int, Outcome]:
    """By the pair's number, who won."""
    return {v.item: _outcome(key.items[v.item - 1], v.choice) for v in verdicts if v.choice}


def _outcome(item: Item, choice: Choice) -> Outcome:
    match choice:
        case "left":
            return item.left_is
        case "right":
            return "b" if item.left_is == "a" else "a"
        case _:
            return choice


def _standing(pairs: Iterable[Sequence[Outcome]]) -> Standing:
    """Of the outcomes of each pair; pairs without any do not count."""
    judged = [outcomes for outcomes in pairs if outcomes]
    every = [outcome for outcomes in judged for outcome in outcomes]
    shares = [_mean([SHARES[outcome] for outcome in outcomes]) for outcomes in judged]
    won, lost = sum(share > 0.5 for share in shares), sum(share < 0.5 for share in shares)
    return Standing(
        wins=every.count("a"),
        losses=every.count("b"),
        ties=every.count("tie"),
        both_bad=every.count("both_bad"),
        pairs=len(judged),
        win_rate=_share_interval(shares),
        bootstrap=ratio_interval(shares, [1.0] * len(shares)) if len(shares) >= FEWEST_TO_RESAMPLE else None,
        pairs_won=won,
        pairs_lost=lost,
        sign_test=sign_test(won, lost),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _share_interval(shares: Sequence[float]) -> Interval | None:
    """Wilson's interval at the mean of shares of pairs; None of none."""
    if not shares:
        return None
    total = min(sum(shares), float(len(shares)))  # thirds may add up to a little more
    return wilson_interval(total, len(shares))


def _judge_score(key: Key, filled: Filled, outcomes: Mapping[int, Outcome]) -> JudgeScore:
    sides = [1.0 if v.choice == "left" else 0.0 for v in filled.verdicts if v.choice in ("left", "right")]
    return JudgeScore(
        judge=filled.judge,
        standing=_standing([outcome] for outcome in outcomes.values()),
        unanswered=len(key.items) - len(outcomes),
        left=_share_interval(sides),
        orders=_orders(filled.verdicts),
    )


def _orders(verdicts: Iterable[Verdict]) -> Orders | None:
    asked = [verdict for verdict in verdicts if verdict.choice and verdict.orders]
    if not asked:
        return None
    changed = sum(not verdict.consistent for verdict in asked)
    firsts = [share for verdict in asked if (share := _first(verdict)) is not None]
    return Orders(len(asked), wilson_interval(changed, len(asked)), _share_interval(firsts))


def _first(verdict: Verdict) -> float | None:
    """Of the two times that a pair was judged, how often the first answer was preferred; None where neither was."""
    assert verdict.orders
    shown = verdict.orders[0], MIRRORED[verdict.orders[1]]  # as if the first stood on the left both times
    decided = [1.0 if choice == "left" else 0.0 for choice in shown if choice in ("left", "right")]
    return _mean(decided) if decided else None


def _agreements(given: Mapping[str, Mapping[int, Outcome]]) -> Iterable[Agreement]:
    for one, other in combinations(given, 2):
        common = [number for number in given[one] if number in given[other]]
        if common:
            yield cohen((one, other), [given[one][n] for n in common], [given[other][n] for n in common])


def _agreement_of_all(given: Mapping[str, Mapping[int, Outcome]]) -> Agreement | None:
    if len(given) < 3:
        return None
    found = list(given.values())
    common = [number for number in found[0] if all(number in one for one in found)]
    return fleiss(tuple(given), [[one[n] for one in found] for n in common]) if common else None
