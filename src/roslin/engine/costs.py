"""What passes have taken, by their size."""

from collections import deque

_SAMPLES = 3
REMEMBERED = 500
"""Passes after which what was not tried any more is tried again."""
_HOPED = 0.02
"""Part of a pass that one row more is hoped to cost, until that is measured."""


class PassCosts:
    """The least seconds that recent passes took, by their number of tokens."""

    def __init__(self) -> None:
        self._seconds: dict[int, deque[float]] = {}
        self._latest: dict[int, int] = {}
        self._passes = 0

    def saw(self, tokens: int, seconds: float) -> None:
        """A pass has been measured."""
        self._passes += 1
        self._seconds.setdefault(tokens, deque(maxlen=_SAMPLES)).append(seconds)
        self._latest[tokens] = self._passes

    def seconds(self, tokens: int) -> float | None:
        """What a pass of so many tokens takes; None until that is known."""
        return min(self._seconds[tokens]) if self._known(tokens) else None

    def of(self, tokens: int, beside: int) -> float:
        """What a pass of so many tokens costs, in passes of `beside`; hopeful until it is known."""
        own, other = self.seconds(tokens), self.seconds(beside)
        if other is None:
            return 1.0 if tokens == beside else float("inf")
        return 1 + _HOPED * (tokens - beside) if own is None else own / other

    def _known(self, tokens: int) -> bool:
        if self._passes - self._latest.get(tokens, self._passes) > REMEMBERED:
            self._seconds[tokens].clear()
        return len(self._seconds.get(tokens, ())) == _SAMPLES
