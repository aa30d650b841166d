"""The sign test: whether one side wins more often than a fair coin would have it."""

from math import comb


def sign_test(wins: int, losses: int) -> float:
    """Exact two-sided p-value of `wins` against `losses` under a fair coin; ties are left out before. 1.0 of none.

    The binomial test with share 1/2, twice the smaller tail, at most 1 (Dixon and Mood 1946).
    """
    trials = wins + losses
    tail = sum(comb(trials, count) for count in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / (1 << trials))
