"""How many guessed tokens a pass computes beside those that are certain, and who guesses them.

A guess costs rows in a pass that has to be made anyway, and saves a pass if it is right. As long as a pass takes most
of its time to read the weights, rows are cheap; how cheap is measured. What a sequence said before is looked up for
nothing; a draft model takes passes of its own, whose time counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from roslin.engine.costs import PassCosts
from roslin.engine.draft import Draft
from roslin.engine.generation import Generation
from roslin.engine.network import Network

SIZES = (2, 4, 8, 16)
"""Tokens of a pass with guesses. Few different ones, for each is measured; no more of them, for from 32 rows a CPU's
kernels round to bfloat16 what they do not with fewer."""
MOST = 7
"""Guesses of one sequence."""
_GAIN = 1.1
"""What must be hoped for at least, to outweigh what is not counted: drawing, and the host's work."""


@dataclass(frozen=True)
class _Source:
    """Where the guesses of one sequence would come from, and how likely each and all before it are right."""

    chances: Sequence[float]
    drafted: bool


class Speculation:
    """Gives the sequences that answer their guesses for the next pass."""

    def __init__(self, *, always: bool, draft: Draft | None = None) -> None:
        """`always`: whenever there is a guess; else where tokens come faster with it, by all that has been seen."""
        self.costs = PassCosts()
        self.draft = draft
        self._always = always

    def propose(self, running: Sequence[Generation]) -> bool:
        """Put guesses into `proposed` of those who answer; whether there are any. Nobody may have unread tokens."""
        sources, counts = self._planned(running)
        left = [generation.request.max_new_tokens - generation.drawn - 1 for generation in running]
        counts = [min(count, most) for count, most in zip(counts, left, strict=True)]
        drafted = self._drafted(running, sources, counts)
        for generation, count in zip(running, counts, strict=True):
            guess = drafted.get(generation.number) or generation.lookup.guess(generation.ids, count)
            stops = (place for place, id in enumerate(guess) if id in generation.request.stop_ids)
            generation.proposed = guess[: next(stops, len(guess))]
        return any(generation.proposed for generation in running)

    def counts(self, running: Sequence[Generation]) -> list[int]:
        """How many guesses are worth it for each of those who answer, by the tokens that have been read."""
        return self._planned(running)[1]

    def _drafted(
        self, running: Sequence[Generation], sources: Sequence[_Source], counts: Sequence[int]
    ) -> dict[int, list[int]]:
        """The guesses of those who ask the draft model, by their numbers."""
        if self.draft is None or not running:
            return {}
        asked = [
            (generation, count)
            for generation, source, count in zip(running, sources, counts, strict=True)
            if source.drafted and count
        ]
        if not asked:
            self.draft.rest()
            return {}
        asking, wanted = zip(*asked, strict=True)
        found = self.draft.guess(asking, wanted)
        return {generation.number: guess for generation, guess in zip(asking, found, strict=True)}

    def _planned(self, running: Sequence[Generation]) -> tuple[list[_Source], list[int]]:
        """Where each one's guesses come from, and how many."""
        certain = len(running)
        if not 0 < certain < SIZES[-1] or any(generation.missing != 1 for generation in running):
            return [_Source((), drafted=False)] * certain, [0] * certain
        for generation in running:
            generation.lookup.read(generation.ids)
        looked = [list(islice(generation.lookup.chances(), MOST)) for generation in running]
        drafted = [self.draft.chances(generation, MOST) if self.draft else [] for generation in running]
        if self._always:
            room = SIZES[-1] // certain - 1
            sources = _better(looked, drafted, room)
            return sources, [min(len(source.chances), room) for source in sources]
        return self._most_worth(running, looked, drafted)

    def _most_worth(
        self, running: Sequence[Generation], looked: Sequence[list[float]], drafted: Sequence[list[float]]
    ) -> tuple[list[_Source], list[int]]:
        """The guesses that bring the most tokens a second, with any number of passes of the draft model."""
        found, speed = (_better(looked, drafted, 0), [0] * len(running)), _GAIN
        for passes in range(1 + max(map(len, drafted))):
            sources = _better(looked, drafted, passes)
            asking = [generation for generation, source in zip(running, sources, strict=True) if source.drafted]
            if bool(passes) == bool(asking):
                counts, hoped = self._most_of(sources, self._drafting(running, asking, passes))
                if hoped > speed:
                    found, speed = (sources, counts), hoped
        return found

    def _drafting(self, running: Sequence[Generation], asking: Sequence[Generation], passes: int) -> float:
        """What so many passes of the draft model cost, in passes of those that answer."""
        one = self.costs.seconds(len(running))
        if self.draft is None or not asking or one is None:
            return 0.0
        return self.draft.seconds(asking, passes, one) / one

    def _most_of(self, sources: Sequence[_Source], drafting: float) -> tuple[list[int], float]:
        """How many of these guesses bring the most tokens a second, and how many times as many as without any."""
        certain, counts, speed = len(sources), [0] * len(sources), 0.0
        # The chances of one sequence fall, so the best of all are the first ones of each.
        chances = ((chance, owner) for owner, source in enumerate(sources) for chance in source.chances)
        best = sorted(chances, reverse=True)
        taken = 0
        for size in SIZES:
            guesses = size - certain
            if 0 < guesses <= len(best):
                sum_of_chances = sum(chance for chance, _ in best[:guesses])
                hoped = (1 + sum_of_chances / certain) / (self.costs.of(size, certain) + drafting)
                if hoped > speed:
                    taken, speed = guesses, hoped
        for _, owner in best[:taken]:
            counts[owner] += 1
        return counts, speed


def speculation_for(
    decoder: Network, draft: Network | None, vocabulary: int, sequences: int, *, speculate: bool | None
) -> Speculation | None:
    """What `Engine` is told to do, as it can be done: None where nothing is to be guessed."""
    in_float32 = decoder.device.type == "cpu" and decoder.dtype == torch.float32
    wanted = draft is not None or in_float32 if speculate is None else speculate
    if not wanted or decoder.dtype == torch.float16:  # a wrong guess could overflow
        return None
    if draft is None:
        return Speculation(always=bool(speculate))
    return Speculation(always=bool(speculate), draft=Draft(draft, vocabulary, sequences))


def _better(looked: Sequence[list[float]], drafted: Sequence[list[float]], passes: int) -> list[_Source]:
    """For each sequence the one of which more guesses are likely right, of a draft model as many as it makes passes."""
    sources = []
    for own, its in zip(looked, drafted, strict=True):
        by_draft = sum(its[:passes]) > sum(own)
        sources.append(_Source(its[:passes] if by_draft else own, by_draft))
    return sources
