"""What is to be expected of a draft model's guesses, and of the answers that it reads a text for."""

_WEIGHT = 8
"""Guesses, or answers, that what is expected beforehand counts for beside those that were seen."""
_FADING = 0.98
"""What earlier ones count for when another one has been seen."""
_LASTING = 32
"""Tokens that are expected to come after a text was read."""


class Success:
    """How often guesses were right, of which the latest count most."""

    def __init__(self) -> None:
        self._right = self._guessed = 0.0

    def saw(self, *, right: int, wrong: int) -> None:
        """So many guesses in a row were right, and then so many wrong."""
        fading = _FADING ** (right + wrong)
        self._right = self._right * fading + right
        self._guessed = self._guessed * fading + right + wrong

    def rate(self, expected: float) -> float:
        """How likely a guess behind right ones is right, if that was `expected` beforehand."""
        return (self._right + _WEIGHT * expected) / (self._guessed + _WEIGHT)


class Lasting:
    """How many tokens come, on average, after a text was read: what reading it was for."""

    def __init__(self) -> None:
        self._tokens, self._texts = float(_WEIGHT * _LASTING), float(_WEIGHT)

    def saw(self, tokens: int) -> None:
        """So many came, and then the answer ended."""
        self._tokens, self._texts = (count * _FADING for count in (self._tokens, self._texts))
        self._tokens, self._texts = self._tokens + tokens, self._texts + 1

    @property
    def mean(self) -> float:
        """Tokens, the latest texts counting most."""
        return self._tokens / self._texts
