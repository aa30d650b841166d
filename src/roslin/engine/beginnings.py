"""Which of the sequences that answer begin with the same blocks, so that attention can read these once for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from roslin.engine.blocks import BLOCK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from roslin.engine.slots import Slots

FEWEST = 4
"""Sequences for which it may be worth while."""
WORTH = 64
"""Blocks that must be saved at the least: what is left in parts must be written and read, by a kernel more a layer."""
SHARE = 0.05
"""And of all that are read."""
SPARE_TILES = 8
"""Tiles for which there is room beyond those that one beginning of all sequences takes."""


@dataclass(frozen=True, eq=False)
class Beginning:
    """Some rows of a pass, and how many blocks all of them begin with."""

    rows_M: npt.NDArray[np.int64]
    blocks: int

    def tiles(self, members: int) -> int:
        """How many tiles of so many rows."""
        return -(-len(self.rows_M) // members)

    def saved(self, members: int) -> int:
        """Blocks that need not be read, where `members` rows share a read."""
        return (len(self.rows_M) - self.tiles(members)) * self.blocks


@dataclass(frozen=True, eq=False)
class Shared:
    """The beginnings of a pass of N rows as kernels take them, int32.

    `commons_N` are the places that each row shares, `tiles_TX` [tiles, 2 + members] rows that share a read: how many
    places (0: nobody's), a slot in whose blocks they lie, and the rows, -1 behind the last.
    """

    commons_N: npt.NDArray[np.int32]
    tiles_TX: npt.NDArray[np.int32]


class Beginnings:
    """Finds them, and remembers what it has found while the same sequences answer."""

    def __init__(self, slots: Slots, members: int) -> None:
        """So many rows can share a read."""
        self._slots, self.members = slots, members
        self._of: tuple[int, tuple[int, ...]] | None = None
        self._found: list[Beginning] = []

    def tiles(self, rows: int) -> int:
        """How many tiles there are for so many rows."""
        return -(-rows // self.members) + SPARE_TILES

    def shared(self, slots: Sequence[int], positions: Sequence[int], rows: int | None = None) -> Shared | None:
        """What the sequences in these slots share, which are at these positions; None where that saves little.

        `rows` are how many rows the pass has, if more than sequences.
        """
        of = self._slots.taken, tuple(slots)
        if of != self._of:
            # Full blocks before the latest token: those that sequences share are never written again.
            whole_A = np.asarray(positions) // BLOCK
            found = common_beginnings(self._slots.rows_SW[np.asarray(slots)], whole_A, self.members)
            self._of, self._found = of, self._worth(found, int(whole_A.sum()) + len(whole_A))
        return self._laid_out(slots, len(slots) if rows is None else rows) if self._found else None

    def _worth(self, found: list[Beginning], read: int) -> list[Beginning]:
        found = sorted(found, key=lambda one: -one.saved(self.members))
        room, kept = self.tiles(sum(len(one.rows_M) for one in found)), []
        for one in found:
            if one.tiles(self.members) <= room:
                room -= one.tiles(self.members)
                kept.append(one)
        saved = sum(one.saved(self.members) for one in kept)
        return kept if saved >= max(WORTH, SHARE * read) else []

    def _laid_out(self, slots: Sequence[int], rows: int) -> Shared:
        commons_N = np.zeros(rows, dtype=np.int32)
        tiles_TX = np.zeros((self.tiles(rows), 2 + self.members), dtype=np.int32)
        tiles_TX[:, 2:] = -1
        tile = 0
        for one in self._found:
            commons_N[one.rows_M] = one.blocks * BLOCK
            for first in range(0, len(one.rows_M), self.members):
                own_M = one.rows_M[first : first + self.members]
                tiles_TX[tile, :2] = one.blocks * BLOCK, slots[own_M[0]]
                tiles_TX[tile, 2 : 2 + len(own_M)] = own_M
                tile += 1
        return Shared(commons_N, tiles_TX)


def common_beginnings(
    blocks_AW: npt.NDArray[np.int32], whole_A: npt.NDArray[np.int64], members: int
) -> list[Beginning]:
    """Sets of rows that begin with the same blocks, chosen so that the most are saved; no row is in two of them.

    Only the first `whole_A` blocks of each row count. Rows that share little with many may share more with a few of
    them: what saves more is taken.
    """
    return _best(blocks_AW, whole_A, np.arange(len(blocks_AW)), members)


def _best(
    blocks_AW: npt.NDArray[np.int32], whole_A: npt.NDArray[np.int64], rows_M: npt.NDArray[np.int64], members: int
) -> list[Beginning]:
    if len(rows_M) < FEWEST:
        return []
    least = int(whole_A[rows_M].min())
    same_W = (blocks_AW[rows_M, :least] == blocks_AW[rows_M[0], :least]).all(0)
    common = least if same_W.all() else int(same_W.argmin())
    longer_M = rows_M[whole_A[rows_M] > common]
    next_M = blocks_AW[longer_M, common] if len(longer_M) else longer_M
    each, counts = np.unique(next_M, return_counts=True)
    several = each[counts >= FEWEST]
    parts = [_best(blocks_AW, whole_A, longer_M[next_M == block], members) for block in several]
    apart = [one for part in parts for one in part]
    together = Beginning(rows_M, common)
    if sum(one.saved(members) for one in apart) > together.saved(members):
        return apart
    return [together] if common else []
