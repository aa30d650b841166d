"""The accounting of blocks: nothing leaks, nothing is given twice, and what begins alike is found."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roslin.engine.block_table import BlockTable
from roslin.engine.blocks import BLOCK, BlockPool, blocks_for


def pool_of(limit: int) -> BlockPool:
    return BlockPool(limit, lambda size: True)


def table_of(pool: BlockPool, ids: list[int]) -> BlockTable:
    return BlockTable(pool, lambda start, stop: bytes(ids[start:stop]))


def filled(pool: BlockPool, ids: list[int]) -> tuple[BlockTable, int]:
    """A table with room for all ids, filled, and how many tokens it shares."""
    table = table_of(pool, ids)
    shared = table.share(len(ids))
    assert table.extend(len(ids))
    table.fill(len(ids))
    return table, shared


def test_what_begins_alike_shares_its_full_blocks() -> None:
    pool = pool_of(100)
    ids = list(range(3 * BLOCK + 5))
    first, shared = filled(pool, ids)
    assert shared == 0
    second, shared = filled(pool, [*ids[: 2 * BLOCK + 3], 200, *ids])
    assert shared == 2 * BLOCK
    assert first.blocks[:2] == second.blocks[:2]
    assert not set(first.blocks[2:]) & set(second.blocks[2:])
    assert [pool.references(block) for block in first.blocks] == [2, 2, 1, 1]
    # A block is the same only if all before it is: these have the first's third block behind another beginning.
    _, shared = filled(pool, [*range(1, BLOCK + 1), *ids[BLOCK:]])
    assert shared == 0


def test_a_block_that_nobody_holds_is_found_until_its_place_is_needed_the_longest_left_first() -> None:
    pool = pool_of(4)
    old, new = list(range(2 * BLOCK)), list(range(100, 100 + BLOCK))
    for ids in (old, new):
        filled(pool, ids)[0].release()
    assert (pool.held, pool.left, pool.free) == (0, 3, 4)
    assert pool.take(2) is not None  # one blank block, and the end of the old one
    table, shared = filled(pool, old)
    assert shared == BLOCK
    table.release()
    assert table_of(pool, new).share(BLOCK) == 0  # it had been left longest when its place was needed


def test_blocks_that_are_forgotten_are_free_and_not_found() -> None:
    pool = pool_of(8)
    filled(pool, list(range(40)))[0].release()
    pool.forget()
    assert (pool.left, pool.free) == (0, 8)
    assert table_of(pool, list(range(40))).share(40) == 0


def test_a_pool_grows_by_doubling_while_half_of_it_serves_and_gives_up_what_is_left_before() -> None:
    made: list[int] = []
    pool = BlockPool(1000, lambda size: not made.append(size))  # type: ignore[func-returns-value]
    for turn in range(60):
        filled(pool, [turn] * (4 * BLOCK))[0].release()
    assert made == [64]
    held = [filled(pool, [turn, 99] * (2 * BLOCK))[0] for turn in range(60)]
    assert made == [64, 128, 256, 512]
    for table in held:
        table.release()
    assert pool.held == 0


def test_memory_that_cannot_be_had_becomes_the_limit() -> None:
    pool = BlockPool(1000, lambda size: size <= 100)
    assert pool.take(64) is not None
    assert pool.take(1) is None
    assert (pool.limit, pool.free) == (64, 0)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), limit=st.integers(1, 40), steps=st.integers(1, 120))
def test_no_block_is_lost_or_given_twice(seed: int, limit: int, steps: int) -> None:
    """Against a plain account: which table holds what."""
    chance = Random(seed)
    pool = pool_of(limit)
    tables: list[tuple[BlockTable, list[int], int]] = []
    for _ in range(steps):
        if tables and chance.random() < 0.4:
            table, _, _ = tables.pop(chance.randrange(len(tables)))
            table.release()
        else:
            ids = [chance.randrange(2) // chance.choice([1, 9]) for _ in range(chance.randrange(5 * BLOCK))]
            table = table_of(pool, ids)
            shared = table.share(len(ids))
            free = pool.free
            enough = free >= blocks_for(len(ids)) - len(table.blocks)
            assert table.extend(len(ids)) == enough
            if enough:
                table.fill(len(ids))
                tables.append((table, ids, shared))
            else:
                assert pool.free == free
                table.release()
        _agrees(pool, tables)
    for table, _, _ in tables:
        table.release()
    assert (pool.held, pool.free) == (0, limit)


def _agrees(pool: BlockPool, tables: list[tuple[BlockTable, list[int], int]]) -> None:
    holders: dict[int, list[tuple[int, ...]]] = {}
    for table, ids, _ in tables:
        for place, block in enumerate(table.blocks):
            holders.setdefault(block, []).append(tuple(ids[: (place + 1) * BLOCK]))
    assert pool.held == len(holders)
    for block, beginnings in holders.items():
        assert pool.references(block) == len(beginnings)
        assert len(set(beginnings)) == 1  # whoever shares a block has the same tokens in it and before it
        assert len(beginnings) == 1 or len(beginnings[0]) % BLOCK == 0


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (BLOCK, 1), (BLOCK + 1, 2)])
def test_how_many_blocks_tokens_fill(tokens: int, blocks: int) -> None:
    assert blocks_for(tokens) == blocks
