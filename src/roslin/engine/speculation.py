"""How many guessed tokens a pass computes beside those that are certain, and who guesses them.

A guess costs rows in a pass that has to be made anyway, and saves a pass if it is right. As long as a pass takes most
of its time to read the weights, rows are cheap; how cheap is measured. What a sequence said before is looked up for
next to nothing; a draft model takes passes of its own, whose time counts. What is not known yet is hoped for, and found
out at a cost that is bounded: all time that guessing takes is booked against what it saves.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from roslin.engine.costs import PassCosts
from roslin.engine.cpu.decoder import KernelDecoder
from roslin.engine.cpu.many import SEVERAL
from roslin.engine.draft import Draft
from roslin.engine.generation import Generation
from roslin.engine.ledger import Ledger
from roslin.engine.lookup import Matches
from roslin.engine.network import Network
from roslin.engine.scheduler import Run

SIZES = (2, 4, 8, 16)
"""Tokens of a pass with guesses. Few different ones, for each is measured."""
MOST = 7
"""Guesses of one sequence."""
_GAIN = 1.1
"""What must be hoped for at least: of what is estimated, the best is chosen, which is mostly less than it seems."""
_FADING = 0.998
"""What earlier look-ups of all requests count for when another one has proved right or wrong."""


@dataclass(frozen=True)
class _Source:
    """Where the guesses of one sequence would come from, and how likely each and all before it are right."""

    chances: Sequence[float]
    drafted: bool


class Speculation:
    """Gives the sequences that answer their guesses for the next pass."""

    def __init__(self, *, always: bool, draft: Draft | None = None, sizes: Sequence[int] = SIZES) -> None:
        """`always`: whenever there is a guess; else where tokens come faster with it, by all that has been seen.

        `sizes` are the tokens that a pass with guesses may have.
        """
        self.costs = PassCosts()
        self.draft = draft
        self._always, self._sizes = always, sizes
        self._matches = Matches(_FADING)
        self._looking, self._drafting = Ledger(), Ledger()
        self._spent, self._asked = 0.0, False
        """Seconds that finding the guesses of the pass at hand has taken, and whether the draft model was asked."""

    def propose(self, running: Sequence[Generation]) -> bool:
        """Put guesses into `proposed` of those who answer; whether there are any. Nobody may have unread tokens."""
        started, first = time.perf_counter(), self.draft is not None and not self.draft.tried
        sources, counts = self._planned(running)
        left = [generation.request.max_new_tokens - generation.drawn - 1 for generation in running]
        counts = [min(count, most) for count, most in zip(counts, left, strict=True)]
        drafted = self._drafted(running, sources, counts)
        for generation, count in zip(running, counts, strict=True):
            guess = drafted.get(generation.number) or generation.lookup.guess(generation.ids, count)
            stops = (place for place, id in enumerate(guess) if id in generation.request.stop_ids)
            generation.proposed = guess[: next(stops, len(guess))]
        # A draft's first pass of all takes memory and compiles what later ones find: it says nothing of their worth.
        self._spent = 0.0 if first and self._asked else time.perf_counter() - started
        return any(generation.proposed for generation in running)

    def saw(self, runs: Sequence[Run], seconds: float, *, whole: bool, resumed: bool) -> None:
        """A pass has been made, and what came of it read, in a step of so many seconds.

        `whole`: the step took what such a pass takes. `resumed`: it began the next pass too, ahead, after a step that
        did not.
        """
        certain, rows = sum(run.draws == run.stop - run.start for run in runs), sum(run.draws for run in runs)
        alone = certain == len(runs)
        if alone and whole:
            self.costs.saw(rows, seconds)
        spent, self._spent = self._spent, 0.0
        one = self.costs.seconds(certain)
        if one is None or certain >= self._sizes[-1]:
            return
        self._looking.passed()
        self._drafting.passed()
        won = sum(len(run.generation.kept) for run in runs if run.proposed) / certain - spent / one
        if alone and rows > certain and whole:
            # No more than each row for itself, or twice what is usual: what takes longer was disturbed.
            won += 1 - min(seconds / one, max(rows / certain, 2 * self.costs.of(rows, certain)))
        if alone and rows == certain and resumed:
            won += min(0.0, 1 - seconds / one)
        (self._drafting if self._asked else self._looking).book(won)

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
        self._asked = bool(asked)
        if not asked:
            self.draft.rest()
            return {}
        asking, wanted = zip(*asked, strict=True)
        found = self.draft.guess(asking, wanted)
        return {generation.number: guess for generation, guess in zip(asking, found, strict=True)}

    def _planned(self, running: Sequence[Generation]) -> tuple[list[_Source], list[int]]:
        """Where each one's guesses come from, and how many."""
        certain = len(running)
        none = [_Source((), drafted=False)] * certain, [0] * certain
        if not 0 < certain < self._sizes[-1] or any(generation.missing != 1 for generation in running):
            return none
        if not (self._always or self.costs.fresh(certain)):
            return none
        looked, drafted = self._looked(running), self._chances(running)
        if not any(looked) and not any(drafted):
            return none
        if self._always:
            room = self._sizes[-1] // certain - 1
            sources = _better(looked, drafted, room)
            return sources, [min(len(source.chances), room) for source in sources]
        return self._most_worth(running, looked, drafted)

    def _looked(self, running: Sequence[Generation]) -> list[list[float]]:
        """How likely what is looked up is right, for each."""
        if not (self._always or self._looking.allows()):
            return [[]] * len(running)
        for generation in running:
            generation.lookup.read(generation.ids, self._matches)
        return [list(islice(generation.lookup.chances(self._matches), MOST)) for generation in running]

    def _chances(self, running: Sequence[Generation]) -> list[list[float]]:
        """How likely the draft model's guesses are right, for each whose text it has read, or can be let read."""
        if self.draft is None:
            return [[]] * len(running)
        found: list[list[float]] = []
        reading, one = 0.0, self.costs.seconds(len(running))
        for generation in running:
            if not self._always and one is not None:
                cost = self.draft.reading(generation, one) / one
                if not self._drafting.allows(reading + cost):
                    found.append([])
                    continue
                reading += cost
            found.append(self.draft.chances(generation, MOST))
        return found

    def _most_worth(
        self, running: Sequence[Generation], looked: Sequence[list[float]], drafted: Sequence[list[float]]
    ) -> tuple[list[_Source], list[int]]:
        """The guesses that bring the most tokens a second, with any number of passes of the draft model."""
        found, speed = (_better(looked, drafted, 0), [0] * len(running)), _GAIN
        for passes in range(1 + max(map(len, drafted))):
            sources = _better(looked, drafted, passes)
            asking = [generation for generation, source in zip(running, sources, strict=True) if source.drafted]
            if bool(passes) == bool(asking):
                counts, hoped = self._most_of(sources, self._cost_of(running, asking, passes))
                if hoped > speed:
                    found, speed = (sources, counts), hoped
        return found

    def _cost_of(self, running: Sequence[Generation], asking: Sequence[Generation], passes: int) -> float:
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
        for size in self._sizes:
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
    sizes: Sequence[int] = SIZES
    if isinstance(decoder, KernelDecoder) and decoder.rounds_many:  # what guesses shall not bring about
        sizes = tuple(size for size in SIZES if size < SEVERAL)
    if draft is None:
        return Speculation(always=bool(speculate), sizes=sizes)
    drafting = Draft(draft, vocabulary, sequences, at_once=bool(speculate))
    return Speculation(always=bool(speculate), draft=drafting, sizes=sizes)


def _better(looked: Sequence[list[float]], drafted: Sequence[list[float]], passes: int) -> list[_Source]:
    """For each sequence the one of which more guesses are likely right, of a draft model as many as it makes passes."""
    sources = []
    for own, its in zip(looked, drafted, strict=True):
        by_draft = sum(its[:passes]) > sum(own)
        sources.append(_Source(its[:passes] if by_draft else own, by_draft))
    return sources
