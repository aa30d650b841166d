"""How many guessed tokens a pass computes beside those that are certain.

A guess costs rows in a pass that has to be made anyway, and saves a pass if it is right. As long as a pass takes most
of its time to read the weights, rows are cheap; how cheap is measured.
"""

from collections import deque
from collections.abc import Sequence
from itertools import islice

from roslin.engine.generation import Generation

SIZES = (2, 4, 8, 16)
"""Tokens of a pass with guesses. Few different ones, for each is measured; no more of them, for from 32 rows a CPU's
kernels round to bfloat16 what they do not with fewer."""
MOST = 7
"""Guesses of one sequence."""
_SAMPLES = 3
_REMEMBERED = 500
"""Passes after which a size that was not taken any more is tried again."""
_GAIN = 1.1
"""What must be hoped for at least, to outweigh what is not counted: drawing, and the host's work."""
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

    def of(self, tokens: int, beside: int) -> float:
        """What a pass of so many tokens costs, in passes of `beside`; hopeful until it is known."""
        hoped = 1 + _HOPED * (tokens - beside)
        if not self._known(beside):
            return 1.0 if tokens == beside else float("inf")
        if tokens == beside or not self._known(tokens):
            return hoped
        return min(self._seconds[tokens]) / min(self._seconds[beside])

    def _known(self, tokens: int) -> bool:
        if self._passes - self._latest.get(tokens, self._passes) > _REMEMBERED:
            self._seconds[tokens].clear()
        return len(self._seconds.get(tokens, ())) == _SAMPLES


class Speculation:
    """Gives the sequences that answer their guesses for the next pass."""

    def __init__(self, *, always: bool) -> None:
        """`always`: whenever there is a guess; else where tokens come faster with it, by all that has been seen."""
        self.costs = PassCosts()
        self._always = always

    def propose(self, running: Sequence[Generation]) -> bool:
        """Put guesses into `proposed` of those who answer; whether there are any. Nobody may have unread tokens."""
        counts = self.counts(running)
        for generation, count in zip(running, counts, strict=True):
            left = generation.request.max_new_tokens - generation.drawn - 1
            guess = generation.lookup.guess(generation.ids, min(count, left))
            stops = (place for place, id in enumerate(guess) if id in generation.request.stop_ids)
            generation.proposed = guess[: next(stops, len(guess))]
        return any(generation.proposed for generation in running)

    def counts(self, running: Sequence[Generation]) -> list[int]:
        """How many guesses are worth it for each of those who answer, by the tokens that have been read."""
        certain, none = len(running), [0] * len(running)
        if not 0 < certain < SIZES[-1] or any(generation.missing != 1 for generation in running):
            return none
        for generation in running:
            generation.lookup.read(generation.ids)
        chances = [list(islice(generation.lookup.chances(), MOST)) for generation in running]
        if self._always:
            room = SIZES[-1] // certain - 1
            return [min(len(own), room) for own in chances]
        # The chances of one sequence fall, so the best of all are the first ones of each.
        best = sorted(((chance, owner) for owner, own in enumerate(chances) for chance in own), reverse=True)
        taken = self._most_worth(certain, [chance for chance, _ in best])
        for _, owner in best[:taken]:
            none[owner] += 1
        return none

    def _most_worth(self, certain: int, chances: Sequence[float]) -> int:
        """How many of the guesses, the best first, bring the most tokens a second."""
        best, speed = 0, _GAIN
        for size in SIZES:
            guesses = size - certain
            if 0 < guesses <= len(chances):
                hoped = (1 + sum(chances[:guesses]) / certain) / self.costs.of(size, certain)
                if hoped > speed:
                    best, speed = guesses, hoped
        return best
