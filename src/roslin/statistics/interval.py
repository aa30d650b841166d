"""An estimate with its interval, and what the normal distribution says of both."""

import math
from dataclasses import dataclass

CONFIDENCE = 0.95
Z = 1.959963984540054
"""The normal quantile of CONFIDENCE, two-sided."""


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval that holds the truth with the stated confidence (0.95 unless said)."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        """The estimate with its interval, as people write it."""
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @property
    def half_width(self) -> float:
        """Half of the interval's length."""
        return (self.high - self.low) / 2


def normal_interval(estimate: float, error: float) -> Interval:
    """The estimate with Z standard errors on both sides."""
    return Interval(estimate, estimate - Z * error, estimate + Z * error)


def normal_p(difference: float, error: float) -> float:
    """Two-sided p of a normal difference with this standard error; no difference has p = 1, whatever its error."""
    if difference == 0:
        return 1.0
    return math.erfc(abs(difference) / error / math.sqrt(2)) if error > 0 else 0.0


def holm(p_values: list[float]) -> list[float]:
    """The p values, in the order given, corrected for being many (Holm 1979): the family-wise error stays at its level.

    The j-th smallest of m is multiplied by m - j + 1; none falls below one that was smaller before, none exceeds 1.
    """
    corrected = [0.0] * len(p_values)
    reached = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = reached
    return corrected
