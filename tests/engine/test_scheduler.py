"""Who runs when, and that nothing leaks: the scheduler by itself, with tokens drawn by lot."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roslin.engine import Request, Token
from roslin.engine.blocks import BLOCK, BlockPool, blocks_for
from roslin.engine.generation import Generation
from roslin.engine.scheduler import PROMPT_TOKENS_PER_PASS, Scheduler
from roslin.engine.slots import Slots

BESIDE = 40


class Simulation:
    """A scheduler whose passes take no time."""

    def __init__(self, blocks: int, batch: int = 8) -> None:
        self.pool = BlockPool(blocks, lambda size: True)
        self.slots = Slots(batch, 2048)
        self.scheduler = Scheduler(self.pool, self.slots, BESIDE)
        self.batch = batch
        self.count = 0

    def submit(self, prompt: list[int], new: int) -> Generation:
        generation = Generation(self.count, Request(prompt, new))
        self.count += 1
        self.scheduler.waiting.append(generation)
        return generation

    def step(self, chance: Random) -> list[Generation]:
        """The generations that took part, the checks of every pass made."""
        answering = sum(one.missing == 1 for one in self.scheduler.running)
        runs = self.scheduler.plan()
        tokens = [run.stop - run.start for run in runs]
        prompts = sum(count for run, count in zip(runs, tokens, strict=True) if run.start < run.stop - 1)
        assert prompts <= (BESIDE if answering else PROMPT_TOKENS_PER_PASS)
        assert len({run.generation.slot for run in runs}) == len(runs) <= self.batch
        for run in runs:
            assert run.generation.table is not None and run.generation.slot is not None
            blocks = run.generation.table.blocks
            assert len(blocks) >= blocks_for(run.stop)
            assert self.slots.rows_SW[run.generation.slot, : len(blocks)].tolist() == blocks
            if run.draws:
                run.generation.take(Token(chance.randrange(3), 0.0))
                if run.generation.completion:
                    self.scheduler.remove(run.generation)
        ages = [one.number for one in self.scheduler.all()]
        assert ages == sorted(ages)
        return [run.generation for run in runs]


def soak(seed: int, count: int, blocks: int) -> int:
    """Random requests to their ends; how often somebody gave way."""
    chance = Random(seed)
    simulation = Simulation(blocks)
    scheduler, left = simulation.scheduler, count
    openings = [[chance.randrange(3) for _ in range(100)] for _ in range(4)]
    longest = blocks * BLOCK
    while left or scheduler.busy:
        for _ in range(chance.randrange(4)):
            if left and len(scheduler.waiting) < 12:
                left -= 1
                opening = chance.choice(openings)[: chance.randrange(101)]
                prompt = [*opening, *(chance.randrange(3) for _ in range(chance.choice([1, 5, 150])))][: longest // 2]
                simulation.submit(prompt, chance.randint(1, min(60, longest - len(prompt))))
        oldest = next(scheduler.all(), None)
        took_part = simulation.step(chance)
        assert oldest is None or oldest in took_part  # nobody starves
        if chance.random() < 0.05 and scheduler.busy:
            scheduler.remove(chance.choice(list(scheduler.all())))
    assert simulation.pool.held == 0
    assert simulation.pool.free == blocks
    assert simulation.slots.any_free
    return scheduler.preempted


@pytest.mark.full
def test_ten_thousand_random_requests_end_with_all_blocks_free() -> None:
    assert soak(seed=0, count=10_000, blocks=40) > 100


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 40), blocks=st.integers(4, 60))
def test_whatever_comes_all_blocks_are_free_at_the_end(seed: int, count: int, blocks: int) -> None:
    soak(seed, count, blocks)


def test_a_long_prompt_does_not_hold_up_those_who_answer() -> None:
    chance, simulation = Random(0), Simulation(200)
    answering = [simulation.submit([n], 50) for n in range(2)]
    simulation.step(chance)
    long = simulation.submit([1] * 1000, 5)
    steps = 0
    while not long.drawn:
        drawn = [one.drawn for one in answering]
        simulation.step(chance)
        assert [one.drawn for one in answering] == [count + 1 for count in drawn]
        steps += 1
    assert steps == 1000 // BESIDE


def test_alone_a_prompt_is_read_in_as_few_passes_as_can_be() -> None:
    chance, simulation = Random(0), Simulation(200)
    long = simulation.submit([1] * 1000, 5)
    simulation.step(chance)
    assert long.drawn == 1


def test_several_that_begin_alike_compute_it_once_even_in_one_pass() -> None:
    simulation = Simulation(200)
    prompt = list(range(3 * BLOCK + 5))
    for _ in range(4):
        simulation.submit(prompt, 5)
    runs = simulation.scheduler.plan()
    assert [(run.start, run.stop) for run in runs] == [(0, 53), (48, 53), (48, 53), (48, 53)]
    assert simulation.pool.held == 3 + 4
    # The last token is always computed: the next one is drawn from what comes of it.
    simulation.submit(prompt[: 2 * BLOCK], 5)
    assert [(run.start, run.stop) for run in simulation.scheduler.plan()][-1] == (BLOCK, 2 * BLOCK)


def test_the_youngest_gives_way_and_goes_on_where_it_stood() -> None:
    chance, simulation = Random(0), Simulation(4)
    old = simulation.submit([0] * 30, 34)
    young = simulation.submit([1] * 10, 40)
    while not simulation.scheduler.preempted:
        simulation.step(chance)
    said = young.ids[10:]
    assert said and young.slot is None and young.computed == 0
    while old.completion is None:
        simulation.step(chance)
    while young.completion is None:
        simulation.step(chance)
    assert young.ids[10 : 10 + len(said)] == said
    assert (old.drawn, young.drawn) == (34, 40)


def test_under_dynamic_scaling_only_beginnings_of_like_length_are_shared_beyond_the_original_positions() -> None:
    one, other = (Generation(0, Request([7] * length, 5)) for length in (40, 90))
    assert one.content(0, BLOCK, original=100) == other.content(0, BLOCK, original=100)
    assert one.content(0, BLOCK, original=None) == other.content(0, BLOCK, original=None)
    assert one.content(0, BLOCK, original=64) != other.content(0, BLOCK, original=64)
    assert other.content(0, BLOCK, original=64) == Generation(1, Request([7] * 90, 9)).content(0, BLOCK, original=64)


def test_guesses_take_blocks_that_are_free_and_nobody_gives_way_for_one() -> None:
    chance, simulation = Random(0), Simulation(4)
    answering = simulation.submit([0] * 2 * BLOCK, BLOCK)
    simulation.step(chance)
    answering.proposed = [1, 2, 3]
    [run] = simulation.scheduler.plan()
    assert (run.start, run.stop, run.draws, run.proposed) == (2 * BLOCK, 2 * BLOCK + 4, 4, [1, 2, 3])
    assert (answering.computed, answering.proposed) == (2 * BLOCK + 1, [])
    other = simulation.submit([1] * (BLOCK - 1), 2)
    answering.take(Token(1, 0.0))
    simulation.step(chance)  # every block is held now
    assert simulation.pool.free == 0
    other.proposed, answering.proposed = [7, 7], [8]
    runs = {run.generation: run for run in simulation.scheduler.plan()}
    assert (runs[answering].draws, runs[other].draws) == (2, 1)
    assert simulation.scheduler.preempted == 0


def test_guesses_of_one_who_gives_way_are_forgotten() -> None:
    chance, simulation = Random(0), Simulation(4)
    old = simulation.submit([0] * 30, 34)
    young = simulation.submit([1] * 10, 40)
    while not simulation.scheduler.preempted:
        young.proposed = [5] if young.slot is not None else young.proposed
        simulation.step(chance)
    assert old.slot is not None and young.proposed == []
