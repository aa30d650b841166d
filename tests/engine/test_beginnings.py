"""Which sequences begin alike, by hand and by trying all ways."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roslin.engine import beginnings
from roslin.engine.beginnings import Beginnings, common_beginnings
from roslin.engine.blocks import BLOCK
from roslin.engine.slots import Slots


def found(rows: list[list[int]], members: int = 8) -> list[tuple[list[int], int]]:
    width = max(map(len, rows))
    blocks = np.array([[*row, *[-9] * (width - len(row))] for row in rows], dtype=np.int32)
    made = common_beginnings(blocks, np.array([len(row) for row in rows]), members)
    return sorted((one.rows_M.tolist(), one.blocks) for one in made)


def test_many_with_little_in_common_or_a_few_with_much() -> None:
    opening = [[7, n, n] for n in range(10, 15)]
    assert found([*opening, [7]]) == [([0, 1, 2, 3, 4, 5], 1)]
    contexts = [[7, 1, 2, 3, n] for n in range(20, 24)] + [[7, 4, 5, 6, n] for n in range(30, 35)]
    assert found([*contexts, *opening]) == [([0, 1, 2, 3], 4), ([4, 5, 6, 7, 8], 4)]


def test_too_few_or_nothing_in_common() -> None:
    assert found([[1, 2], [1, 2], [1, 2]]) == []
    assert found([[1, 2], [2, 2], [3, 2], [4, 2], []]) == []


def test_what_stands_behind_a_sequences_full_blocks_does_not_count() -> None:
    blocks = np.full((4, 6), 3, dtype=np.int32)
    [one] = common_beginnings(blocks, np.array([4, 5, 2, 6]), 8)
    assert (one.rows_M.tolist(), one.blocks) == ([0, 1, 2, 3], 2)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 1), max_size=4), min_size=1, max_size=12))
def test_the_most_is_saved_that_a_tree_of_beginnings_allows(rows: list[list[int]]) -> None:
    """Blocks of one number only where all before them are the same, as it is in a cache."""
    members = 5

    @cache
    def most(start: tuple[int, ...]) -> int:
        mine = [row for row in rows if tuple(row[: len(start)]) == start]
        if len(mine) < beginnings.FEWEST:
            return 0
        together = (len(mine) - -(-len(mine) // members)) * len(start)
        return max(together, sum(most((*start, block)) for block in (0, 1)))

    named = [[hash(tuple(row[: n + 1])) % 2**31 for n in range(len(row))] for row in rows]
    made = found(named, members)
    taken = [row for which, _ in made for row in which]
    assert len(taken) == len(set(taken))
    for which, blocks in made:
        assert blocks > 0 and len({tuple(rows[row][:blocks]) for row in which}) == 1
        assert all(len(rows[row]) >= blocks for row in which)
    assert sum((len(which) - -(-len(which) // members)) * blocks for which, blocks in made) == most(())


def slots_with(rows: list[list[int]]) -> Slots:
    slots = Slots(len(rows), 20 * BLOCK)
    for row in rows:
        slots.write(slots.take(), row)
    return slots


def test_as_kernels_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginnings, "WORTH", 1)
    slots = slots_with([[5, 6, n] for n in range(10, 15)] + [[9, 9, 9]])
    made = Beginnings(slots, 3).shared([4, 5, 3, 1, 0], [2 * BLOCK + n for n in range(5)], rows=7)
    assert made is not None
    assert made.commons_N.tolist() == [2 * BLOCK, 0, 2 * BLOCK, 2 * BLOCK, 2 * BLOCK, 0, 0]
    assert made.tiles_TX[:2].tolist() == [[2 * BLOCK, 4, 0, 2, 3], [2 * BLOCK, 0, 4, -1, -1]]
    assert not made.tiles_TX[2:, 0].any()


def test_it_must_be_worth_a_kernel() -> None:
    slots = slots_with([[5, 6, n] for n in range(8)])
    places = [2 * BLOCK + 1] * 8
    assert Beginnings(slots, 4).shared(range(8), places) is None
    wide = slots_with([[5, *[n] * 18] for n in range(70)])
    assert Beginnings(wide, 32).shared(range(70), [19 * BLOCK] * 70) is None  # 67 of 1,400 blocks
    assert Beginnings(wide, 32).shared(range(70), [10 * BLOCK] * 70) is not None


def test_what_is_remembered_goes_with_the_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginnings, "WORTH", 1)
    slots = slots_with([[5, n] for n in range(4)])
    finder = Beginnings(slots, 4)
    first = finder.shared([0, 1, 2, 3], [BLOCK] * 4)
    again = finder.shared([0, 1, 2, 3], [BLOCK + 1] * 4)
    assert first is not None and again is not None and first.commons_N.tolist() == again.commons_N.tolist()
    slots.free(2)
    slots.write(slots.take(), [8, 8])  # another sequence in the same slot
    assert finder.shared([0, 1, 2, 3], [BLOCK + 2] * 4) is None
