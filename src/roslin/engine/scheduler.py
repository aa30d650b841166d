"""Which tokens the next pass computes: who waits, who runs, and who gives way when the cache is full."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from roslin.engine.block_table import BlockTable
from roslin.engine.blocks import BLOCK, BlockPool
from roslin.engine.generation import Generation
from roslin.engine.slots import Slots

PROMPT_TOKENS_PER_PASS = 4096
"""Tokens of prompts in one pass when nobody is answering."""
PROMPT_TOKENS_BESIDE = {"cpu": 256, "cuda": 512}
"""The same, by device, beside those that are answering, whose next token waits for the pass: about as many as a matrix
product needs to run at full speed."""


@dataclass(slots=True)
class Run:
    """Ids `start` to `stop` of a generation, to be computed in this pass: of its own, and then the `proposed` ones.

    A token is drawn after each of the last `draws` of them.
    """

    generation: Generation
    start: int
    stop: int
    draws: int
    proposed: Sequence[int] = ()


class Scheduler:
    """First come, first served. Each pass computes a token of everyone who answers, and some prompt beside.

    Blocks are taken as they are needed. When there are none, the youngest gives its own back and waits in front of all
    others; it is computed again later from its ids, and goes on where it stood in its random stream. So the oldest
    always gets on, and nobody starves.
    """

    def __init__(self, pool: BlockPool, slots: Slots, beside: int, original: int | None = None) -> None:
        """`beside` bounds the prompt tokens of a pass in which somebody answers; `original` as in `content`."""
        self.running: list[Generation] = []
        """By age, the oldest first."""
        self.waiting: deque[Generation] = deque()
        """By age too; all are younger than those that run."""
        self.preempted = 0
        """How often somebody had to give way."""
        self._pool, self._slots = pool, slots
        self._beside, self._original = beside, original

    @property
    def busy(self) -> bool:
        """Whether anything runs or waits."""
        return bool(self.running or self.waiting)

    def plan(self) -> list[Run]:
        """What the next pass computes. It counts as computed from now on."""
        missing = [generation.missing for generation in self.running]
        budget = self._beside if 1 in missing else PROMPT_TOKENS_PER_PASS
        runs: list[Run] = []
        for generation, lacking in zip(list(self.running), missing, strict=True):
            count = 1 if lacking == 1 else min(lacking, budget)
            if count and generation.slot is not None and self._has_room(generation, count):
                budget -= count if lacking > 1 else 0
                runs.append(self._run(generation, count, draws=count == lacking))
        growing = sum(one.grows for one in self.running) if self._may_admit(budget) else 0
        while self._may_admit(budget) and (newcomer := self._admit(growing)):
            lacking = newcomer.missing
            count = min(lacking, budget)
            budget -= count
            runs.append(self._run(newcomer, count, draws=count == lacking))
            growing += newcomer.grows
        return runs

    @property
    def may_be_short(self) -> bool:
        """Whether there might be too few blocks for a token more of everyone who runs."""
        if self._pool.free >= len(self.running):
            return False
        lacking = (one.table.missing(one.computed + 1) for one in self.running if one.table and one.missing == 1)
        return self._pool.free < sum(lacking)

    def remove(self, *generations: Generation) -> None:
        """Give back all that these hold, and forget them."""
        for generation in generations:
            if generation.slot is None:
                self.waiting.remove(generation)
            else:
                self._free(generation)
        self.running = [one for one in self.running if one.slot is not None]

    def find(self, number: int) -> Generation | None:
        """The running or waiting generation of that number."""
        return next((s for s in self.all() if s.number == number), None)

    def all(self) -> Iterator[Generation]:
        """All by age, the oldest first."""
        yield from self.running
        yield from self.waiting

    def _run(self, generation: Generation, count: int, *, draws: bool) -> Run:
        assert generation.table is not None and generation.slot is not None
        start, stop = generation.computed, generation.computed + count
        generation.computed = stop
        if count > 1 or not stop % BLOCK:
            generation.name_blocks()
        run = Run(generation, start, stop, int(draws))
        if generation.proposed:
            # They count as computed only when they have proved right; what stands there else is written over.
            proposed, generation.proposed = generation.proposed, []
            if generation.table.extend(stop + len(proposed)):  # nobody gives way for a guess
                self._slots.write(generation.slot, generation.table.blocks)
                run.stop, run.draws, run.proposed = stop + len(proposed), 1 + len(proposed), proposed
        return run

    def _may_admit(self, budget: int) -> bool:
        """Whether anybody waits, and there are a slot and tokens of prompts to be read."""
        return budget > 0 and bool(self.waiting) and self._slots.any_free

    def _admit(self, growing: int) -> Generation | None:
        """Let the one that has waited longest run, if there is room for all that it has by now.

        And for another block for each of the `growing` ones that run already and can come to need one: else it would
        soon have to give way.
        """
        generation = self.waiting[0]
        table = BlockTable(self._pool, partial(generation.content, original=self._original))
        # At least one token is computed, for the next one is drawn from what comes of it.
        shared = table.share(len(generation.ids) - 1)
        if table.missing(len(generation.ids)) + growing > self._pool.free or not table.extend(len(generation.ids)):
            table.release()
            return None
        self.running.append(self.waiting.popleft())
        slot = self._slots.take(generation.request.most_cached - 1, generation.request.stop_ids)
        self._slots.write(slot, table.blocks)
        generation.table, generation.computed, generation.slot = table, shared, slot
        return generation

    def _has_room(self, generation: Generation, count: int) -> bool:
        """Have blocks for so many tokens more of one that runs; False when it had to give way itself."""
        # Mostly it is one token, and the last block is not full.
        return bool(count == 1 and generation.computed % BLOCK) or self._make_room(
            generation, generation.computed + count
        )

    def _make_room(self, generation: Generation, tokens: int) -> bool:
        assert generation.table is not None and generation.slot is not None
        while not generation.table.extend(tokens):
            youngest = self.running.pop()
            self._free(youngest)
            self.waiting.appendleft(youngest)
            self.preempted += 1
            if youngest is generation:
                return False
        self._slots.write(generation.slot, generation.table.blocks)
        return True

    def _free(self, generation: Generation) -> None:
        assert generation.table is not None and generation.slot is not None
        if generation.let_go is not None:
            generation.let_go()
        generation.table.release()
        self._slots.free(generation.slot)
        generation.table, generation.slot, generation.computed, generation.resident = None, None, 0, False
        generation.proposed, generation.let_go = [], None
