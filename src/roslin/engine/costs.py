"""What passes take, by their size."""

from collections import deque
from statistics import median

_SAMPLES = 5
"""Of which the middle one counts: passes are disturbed now and then."""
_ENOUGH = 2
"""Passes of a size by which it is known: the first may have had to take memory."""
REMEMBERED = 500
"""Passes after which what was not tried any more is tried again, once."""
FRESH = 200
"""Passes after which what others are compared with is measured again."""
_HOPED = 0.02
"""Part of a pass that one row more is hoped to cost, until that is measured."""


class PassCosts:
    """The seconds that recent passes took, by their number of tokens."""

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
        seen = self._seconds.get(tokens, ())
        if len(seen) < _ENOUGH:
            return None
        return min(seen) if len(seen) == _ENOUGH else median(seen)

    def fresh(self, tokens: int) -> bool:
        """Whether passes of so many tokens can be compared with: that they take what was last measured."""
        return self.seconds(tokens) is not None and self._age(tokens) <= FRESH

    def of(self, tokens: int, beside: int) -> float:
        """What a pass of so many tokens costs, in passes of `beside`.

        Hopeful until it is known: little more than `beside`, and no less than what fewer tokens are known to take.
        """
        other = self.seconds(beside)
        if other is None:
            return 1.0 if tokens == beside else float("inf")
        self._doubt(tokens)
        own = self.seconds(tokens)
        if own is not None:
            return own / other
        fewer = [self.seconds(size) for size in self._seconds if size < tokens]
        return max([1 + _HOPED * (tokens - beside), *(known / other for known in fewer if known is not None)])

    def _age(self, tokens: int) -> int:
        """How many passes ago one of so many tokens was last measured."""
        return self._passes - self._latest.get(tokens, self._passes)

    def _doubt(self, tokens: int) -> None:
        """Have what is old tried once more."""
        if self._age(tokens) > REMEMBERED:
            least = min(self._seconds[tokens])
            self._seconds[tokens] = deque([least], maxlen=_SAMPLES)
