"""What guessing has won and lost, against answering without it."""

START = 16.0
"""What may be lost before anything has been won: it is not known beforehand what guesses are worth."""
_SHARE = 0.01
"""Part of all passes that may be lost beside: what was found out grows old, and is tried again."""
_HORIZON = 5000
"""Passes over which is reckoned; those further back fade."""


class Ledger:
    """The balance of one kind of guesses, in passes without any.

    Estimates decide when to guess, and this bounds their errors: whatever they say, no more is lost than START passes
    and a hundredth of all.
    """

    def __init__(self) -> None:
        self._balance = self._passes = 0.0

    def passed(self) -> None:
        """There was a pass, with guesses or without."""
        fading = 1 - 1 / _HORIZON
        self._balance *= fading
        self._passes = self._passes * fading + 1

    def book(self, won: float) -> None:
        """So many passes were saved, or lost if negative. One disturbance does not end all guessing: START at most."""
        self._balance = min(self._balance + max(won, -START), START)

    def allows(self, cost: float = 0.0) -> bool:
        """Whether so much may be spent that is perhaps not won back."""
        return self._balance - cost > -(START + _SHARE * self._passes)
