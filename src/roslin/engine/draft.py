"""A small model of the same vocabulary that says in advance what the large one will probably say."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from roslin.engine.block_table import BlockTable
from roslin.engine.costs import REMEMBERED, PassCosts
from roslin.engine.generation import Generation
from roslin.engine.network import Network
from roslin.engine.sampler import Samplers
from roslin.engine.scheduler import PROMPT_TOKENS_BESIDE, Run
from roslin.engine.store import Store
from roslin.memory import token_bytes

_HOPED = 0.7
"""Guesses that are expected to be right before any was made: small models of one family come to about this."""
_HOPED_COST = 0.1
"""Part of a pass of the large model that one of the small is hoped to take, until that is measured."""
_WEIGHT = 8
"""Guesses that what is expected counts for beside those that were made."""
_FADING = 0.98
"""What earlier guesses count for when another one has proved right or wrong."""
_BESIDE = 16
"""Tokens that a pass answers beside reading, at most; more are a text that is still to be read."""
_SPREAD = 32
"""Passes over which the time for reading a text is spread: what follows it has the use of it."""


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


@dataclass(eq=False)
class Shadow(Generation):
    """A request as the small model follows it: the same ids, with keys and values of its own, and its latest guesses.

    The guesses stand behind the first `computed` ids.
    """

    success: Success = field(default_factory=Success)


class Draft:
    """The small model. It follows sequences in a cache of its own, whose blocks go when theirs do.

    It draws with the noise with which the large model will: where both find the same tokens probable, they mostly draw
    the same one.
    """

    def __init__(self, network: Network, vocabulary: int, sequences: int) -> None:
        """For up to `sequences`. It has no cache before `begin`."""
        self._network, self._vocabulary, self._sequences = network, vocabulary, sequences
        self._reads = PROMPT_TOKENS_BESIDE.get(network.device.type, PROMPT_TOKENS_BESIDE["cuda"])
        self._forget_worth()

    def begin(self, blocks: int, *, kernels: bool) -> None:
        """Have an empty cache of up to so many blocks, and follow nobody. `kernels`: attention by Triton's."""
        self._store = Store(self._network, blocks, self._sequences, kernels=kernels)
        self._samplers = Samplers()
        self._shadows: dict[int, Shadow] = {}

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self._network.device

    @property
    def token_bytes(self) -> int:
        """What its cache keeps of one token."""
        return token_bytes(self._network.config, self._network.dtype.itemsize)

    @property
    def held(self) -> int:
        """Blocks that are held for sequences which run."""
        return self._store.pool.held

    def forget(self) -> None:
        """Let nothing that is left in the cache be found any more: the weights may have changed."""
        self._store.pool.forget()

    def chances(self, generation: Generation, most: int) -> list[float]:
        """How likely each of the next guesses, at most so many, and all before it are right."""
        shadow = self._shadows.get(generation.number)
        rate = self.success.rate(_HOPED)
        if shadow is not None:
            self._learn(shadow)
            rate = shadow.success.rate(rate)
        room = min(self._network.config.positions - len(generation.ids), _left(generation) - 1)
        return [rate ** (place + 1) for place in range(min(most, room))]

    def seconds(self, asking: Sequence[Generation], passes: int, one: float) -> float:
        """What so many passes for all who ask are expected to take, if one of the large model takes `one`."""
        # What fewer take is known to be the least.
        known = (self.costs.seconds(count) for count in range(len(asking), 0, -1))
        each = next(filter(None, known), _HOPED_COST * one)
        token = self._reading or each / _BESIDE
        unread = ((self._unread(generation), generation) for generation in asking)
        reading = (
            tokens * token / min(_SPREAD, _left(generation)) for tokens, generation in unread if tokens > _BESIDE
        )
        return passes * each + sum(reading)

    def rest(self) -> None:
        """It was not asked for this pass. What it cost and brought is forgotten when that was long ago."""
        self._rested += 1
        if self._rested > REMEMBERED:
            self._forget_worth()

    def guess(self, asking: Sequence[Generation], counts: Sequence[int]) -> list[list[int]]:
        """So many ids for each of those who ask, in as many passes as the highest count.

        None for whom its cache has no room, or as long as a long text is being read; one for all in a pass beside that.
        """
        started, self._rested, budget = time.perf_counter(), 0, self._reads
        runs: list[Run] = []
        for generation, count in zip(asking, counts, strict=True):
            run = self._catching_up(generation, count, budget)
            if run is not None:
                budget -= run.stop - run.start
                runs.append(run)
        read = self._reads - budget
        reading = read > _BESIDE * len(runs)
        wanted = {g.number: 1 if reading else count for g, count in zip(asking, counts, strict=True)}
        passes = self._draw_all(sorted(runs, key=lambda run: run.stop - run.start), wanted)
        seconds = time.perf_counter() - started
        if passes and reading:
            self._reading = seconds / read
        elif passes:
            self.costs.saw(len(runs), seconds / passes)
        shadows = [self._shadows.get(generation.number) for generation in asking]
        return [list(shadow.proposed) if shadow else [] for shadow in shadows]

    def _draw_all(self, runs: list[Run], wanted: dict[int, int]) -> int:
        """Draw the guesses of those who have been read to their ends; in how many passes."""
        drawn: list[tuple[list[Shadow], Tensor]] = []
        while runs:
            drawing = [_shadow(run) for run in runs if run.draws]
            ids_B = self._pass(runs, [shadow.drawn + len(drawn) for shadow in drawing])
            if ids_B is None:
                break
            drawn.append((drawing, ids_B))
            going_on = [shadow for shadow in drawing if wanted[shadow.number] > len(drawn)]
            ends = [len(shadow.ids) + len(drawn) for shadow in going_on]
            # These begin with ids that nobody has read: they stand on the device.
            runs = [Run(shadow, end - 1, end, 1) for shadow, end in zip(going_on, ends, strict=True)]
        for drawing, ids_B in drawn:
            for shadow, id in zip(drawing, ids_B.tolist(), strict=True):
                shadow.proposed.append(id)
        return len(drawn)

    def _pass(self, runs: Sequence[Run], steps: Sequence[int]) -> Tensor | None:
        """The ids [B] drawn behind those runs that are to draw."""
        stream = self._store.streams.of(runs)
        hidden_ND = self._network.hidden(stream.ids_N, stream.positions_N, stream.attend)
        drawing = [run.generation for run in runs if run.draws]
        if not drawing:
            return None
        logits_BV = self._network.logits(hidden_ND[stream.lasts_B])[:, : self._vocabulary].float()
        ids_B = self._samplers.choose(drawing, steps, logits_BV)
        self._store.resident.latest_S[stream.slots_B] = ids_B
        for generation in drawing:
            generation.resident = True
        return ids_B

    def _catching_up(self, generation: Generation, count: int, budget: int) -> Run | None:
        """Ids that it has not computed yet, as far as the budget goes; None where there is no room for the guesses."""
        shadow = self._followed(generation)
        if shadow is None or shadow.table is None or not budget:
            return None
        if not shadow.table.extend(len(shadow.ids) + count - 1):
            return None
        start = shadow.computed
        stop = min(start + budget, len(shadow.ids))
        shadow.computed, shadow.drawn = stop, generation.drawn
        shadow.name_blocks()
        self._store.slots.write(shadow.slot or 0, shadow.table.blocks)
        return Run(shadow, start, stop, int(stop == len(shadow.ids)))

    def _followed(self, generation: Generation) -> Shadow | None:
        """The request as it is followed here; None where there is no room for one more."""
        shadow = self._shadows.get(generation.number)
        if shadow is not None:
            return shadow
        shadow = Shadow(generation.number, generation.request)
        shadow.ids, shadow.stream = generation.ids, generation.stream
        table = BlockTable(self._store.pool, partial(shadow.content, original=self._store.original))
        shared = table.share(len(shadow.ids) - 1)
        if not table.extend(len(shadow.ids)):
            table.release()
            return None
        shadow.table, shadow.computed, shadow.slot = table, shared, self._store.slots.take()
        self._shadows[generation.number] = shadow
        generation.let_go = partial(self._release, shadow)
        return shadow

    def _release(self, shadow: Shadow) -> None:
        assert shadow.table is not None and shadow.slot is not None
        del self._shadows[shadow.number]
        shadow.table.release()
        self._store.slots.free(shadow.slot)

    def _learn(self, shadow: Shadow) -> None:
        """Compare the latest guesses with what came; what was computed of those that were right stays."""
        came = shadow.ids[shadow.computed : shadow.computed + len(shadow.proposed)]
        if not came:
            return
        pairs = zip(shadow.proposed, came, strict=False)
        right = next((place for place, (guess, id) in enumerate(pairs) if guess != id), len(came))
        for one in (shadow.success, self.success):
            one.saw(right=right, wrong=int(right < len(came)))
        # The last guess has been drawn and not yet computed, and what is drawn next comes of the latest id.
        kept = shadow.computed + min(right, len(shadow.proposed) - 1)
        shadow.computed, shadow.proposed = min(kept, len(shadow.ids) - 1), []
        shadow.name_blocks()

    def _unread(self, generation: Generation) -> int:
        shadow = self._shadows.get(generation.number)
        return len(generation.ids) - (shadow.computed if shadow else 0)

    def _forget_worth(self) -> None:
        self.costs, self.success = PassCosts(), Success()
        self._reading = 0.0
        """Seconds that the latest text took, a token; 0 until one was read."""
        self._rested = 0


def _left(generation: Generation) -> int:
    return max(1, generation.request.max_new_tokens - generation.drawn)


def _shadow(run: Run) -> Shadow:
    assert isinstance(run.generation, Shadow)
    return run.generation
