"""Agreement among judges: the raw share, and kappa, which takes off what chance alone would bring."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Agreement:
    """How far judges agree on the items that all of them have judged."""

    judges: tuple[str, ...]
    items: int
    share: float
    """Of two judges picked at random from them, on an item picked at random: how often they agree."""
    kappa: float | None
    """1 is full agreement, 0 what chance would bring; None where all verdicts are the same and chance explains all."""


def cohen(judges: tuple[str, str], first: Sequence[Hashable], second: Sequence[Hashable]) -> Agreement:
    """Agreement of two judges on the same items (Cohen 1960): (p_o - p_e) / (1 - p_e).

    p_o is the share of items with equal verdicts, p_e the sum over verdicts of the product of both judges' shares.
    """
    items = len(first)
    observed = sum(x == y for x, y in zip(first, second, strict=True)) / items
    shares = Counter(first), Counter(second)
    expected = sum(shares[0][verdict] * shares[1][verdict] for verdict in shares[0]) / items**2
    return Agreement(judges, items, observed, _kappa(observed, expected))


def fleiss(judges: tuple[str, ...], verdicts: Sequence[Sequence[Hashable]]) -> Agreement:
    """Agreement of n >= 2 judges (Fleiss 1971); `verdicts` has a row an item, a verdict a judge.

    Observed: the mean over items of (sum of squared counts - n) / (n (n - 1)); expected: the sum of squared shares of
    the verdicts over all items and judges.
    """
    items, n = len(verdicts), len(verdicts[0])
    observed = sum(sum(c * c for c in Counter(row).values()) - n for row in verdicts) / (items * n * (n - 1))
    totals = Counter(verdict for row in verdicts for verdict in row)
    expected = sum((total / (items * n)) ** 2 for total in totals.values())
    return Agreement(judges, items, observed, _kappa(observed, expected))


def _kappa(observed: float, expected: float) -> float | None:
    # Shares that add up to 1 do so only nearly in floats.
    return None if expected > 1 - 1e-12 else (observed - expected) / (1 - expected)
