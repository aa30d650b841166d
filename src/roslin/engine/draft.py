"""A small model of the same vocabulary that says in advance what the large one will probably say."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from roslin.engine.block_table import BlockTable
from roslin.engine.blocks import blocks_for
from roslin.engine.costs import REMEMBERED, PassCosts
from roslin.engine.expectations import Lasting, Success
from roslin.engine.generation import Generation
from roslin.engine.network import Network
from roslin.engine.sampler import Samplers
from roslin.engine.scheduler import PROMPT_TOKENS_BESIDE, Run
from roslin.engine.store import Store, usual_cache
from roslin.memory import DRAFTED, token_bytes

_UNDRAWN = 0
"""The number under which passes that draw nothing are measured, of one token."""
_HOPED = 0.7
"""Guesses that are expected to be right before any was made: small models of one family come to about this."""
_HOPED_COST = 0.1
"""Part of a pass of the large model that one of the small is hoped to take, until that is measured."""
_BESIDE = 16
"""Tokens that a pass answers beside reading, at most; more are a text that is still to be read."""
_BULK = 64
"""Tokens of a pass from which on it shows what reading takes, a token."""
_GROWTH = 4
"""How many times as long as its last piece the next piece of a text may be, until it is known what reading takes."""


@dataclass(eq=False)
class Shadow(Generation):
    """A request as the small model follows it: the same ids, with keys and values of its own, and its latest guesses.

    The guesses stand behind the first `computed` ids.
    """

    success: Success = field(default_factory=Success)
    began: int = 0
    """Ids that there were when it was first followed."""


class Draft:
    """The small model. It follows sequences in a cache of its own, whose blocks go when theirs do.

    It draws with the noise with which the large model will: where both find the same tokens probable, they mostly draw
    the same one.
    """

    def __init__(self, network: Network, vocabulary: int, sequences: int, *, at_once: bool = False) -> None:
        """For up to `sequences`. It has no cache before `begin`.

        `at_once`: the first texts are read without first finding out, in small pieces, what that takes.
        """
        self._network, self._vocabulary, self._sequences = network, vocabulary, sequences
        self._reads = PROMPT_TOKENS_BESIDE.get(network.device.type, PROMPT_TOKENS_BESIDE["cuda"])
        self._at_once = at_once
        self.tried = False
        """Whether it has made any pass."""
        self._piece = 1
        """Tokens of a text that are read at once, at most: more and more, as it is found out what they take."""
        self._forget_worth()

    def begin(self, blocks: int, *, kernels: bool) -> None:
        """Have an empty cache of up to so many blocks, and follow nobody. `kernels`: attention by Triton's.

        Of no more than it can need, for as many as it guesses for at once.
        """
        blocks = min(blocks, DRAFTED * blocks_for(self._network.config.positions))
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
        return token_bytes(self._network.config, usual_cache(self._network).itemsize)

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
        """What so many passes for all who ask are expected to take, if one of the large model takes `one`.

        And the part of reading their texts that this pass has to bear.
        """
        lasting = max(1.0, self.lasted.mean)
        reading = sum(self.reading(generation, one) / min(lasting, _left(generation)) for generation in asking)
        return passes * self._each(len(asking), one) + reading

    def reading(self, generation: Generation, one: float) -> float:
        """Seconds that reading what is unread is expected to take, if a pass of the large model takes `one`."""
        tokens = self._unread(generation)
        if tokens <= _BESIDE:
            return 0.0
        each = self._each(1, one)
        return -(-tokens // self._reads) * each + tokens * (min(self._slopes) if self._slopes else each / _BESIDE)

    def rest(self) -> None:
        """It was not asked for this pass. What it cost and brought is forgotten when that was long ago."""
        self._rested += 1
        if self._rested > REMEMBERED:
            self._forget_worth()

    def guess(self, asking: Sequence[Generation], counts: Sequence[int]) -> list[list[int]]:
        """So many ids for each of those who ask, in as many passes as the highest count.

        None for whom its cache has no room, or as long as a long text is being read; one for all in a pass beside that.
        """
        started, self._rested = time.perf_counter(), 0
        whole = budget = self._reads if self._at_once else self._piece
        runs: list[Run] = []
        for generation, count in zip(asking, counts, strict=True):
            run = self._catching_up(generation, count, budget)
            if run is not None:
                budget -= run.stop - run.start
                runs.append(run)
        read = whole - budget
        reading = read > _BESIDE * len(runs)
        wanted = {g.number: 1 if reading else count for g, count in zip(asking, counts, strict=True)}
        passes = self._draw_all(sorted(runs, key=lambda run: run.stop - run.start), wanted)
        if runs:
            self._saw(len(runs), read, passes, time.perf_counter() - started)
        shadows = [self._shadows.get(generation.number) for generation in asking]
        return [list(shadow.proposed) if shadow else [] for shadow in shadows]

    def _each(self, asking: int, one: float) -> float:
        """What one of its passes takes for so many who ask."""
        # What fewer take is known to be the least.
        known = (self.costs.seconds(count) for count in range(asking, 0, -1))
        return next(filter(None, known), max(_HOPED_COST * one, self.costs.seconds(_UNDRAWN) or 0.0))

    def _saw(self, runs: int, read: int, passes: int, seconds: float) -> None:
        """It has read so many tokens of so many texts, and drawn behind them in so many passes, in all this time."""
        if not self.tried:
            self.tried = True
        elif passes and read <= _BESIDE * runs:
            self.costs.saw(runs, seconds / passes)
        elif read >= _BULK:
            self._slopes.append(max(0.0, seconds - self._each(runs, 0.0)) / read)
        elif read == 1:
            self.costs.saw(_UNDRAWN, seconds)
        if self.costs.seconds(_UNDRAWN) is not None and read == self._piece:
            self._piece = min(self._reads, _GROWTH * self._piece)

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
        if not drawn and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # what reading takes is measured
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
        shadow.ids, shadow.stream, shadow.began = generation.ids, generation.stream, len(generation.ids)
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
        self.lasted.saw(len(shadow.ids) - shadow.began)
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
        self.costs, self.success, self.lasted = PassCosts(), Success(), Lasting()
        self._slopes: deque[float] = deque(maxlen=3)
        """Seconds a token that reading the latest long texts took beside the pass."""
        self._piece, self._rested = 1, 0


def _left(generation: Generation) -> int:
    return max(1, generation.request.max_new_tokens - generation.drawn)


def _shadow(run: Run) -> Shadow:
    assert isinstance(run.generation, Shadow)
    return run.generation
