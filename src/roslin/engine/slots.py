"""Places for running sequences in the table of blocks that attention reads."""

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from roslin.engine.blocks import blocks_for

STOP_IDS = 7
"""Of a sequence that a device looks out for. Where it has more, only the host does, one pass later."""
NEVER = 2**62
"""The last position of a sequence that has none."""


class Slots:
    """A row of block numbers for each running sequence, [slots, blocks of the longest], int32."""

    def __init__(self, slots: int, positions: int) -> None:
        """All free; a sequence may have up to `positions` tokens."""
        self.rows_SW: npt.NDArray[np.int32] = np.zeros((slots, blocks_for(positions)), dtype=np.int32)
        self.taken = 0
        """How often a slot was taken: while that stays the same, so do the sequences in their slots."""
        self.ends_SX: npt.NDArray[np.int64] = np.full((slots, 1 + STOP_IDS), -1, dtype=np.int64)
        """Of each sequence the last position that it computes, and its stop ids, -1 behind them."""
        self._newcomers: set[int] = set()
        self._free = list(range(slots))[::-1]
        self._written = [0] * slots
        self._changed: set[int] = set()

    @property
    def any_free(self) -> bool:
        """Whether another sequence has a place."""
        return bool(self._free)

    def take(self, last: int = NEVER, stop_ids: Collection[int] = ()) -> int:
        """A free slot, the lowest, for a sequence that ends at the position `last`, or with one of `stop_ids`."""
        slot = self._free.pop()
        self.taken += 1
        self._written[slot] = 0
        self.ends_SX[slot], self.ends_SX[slot, 0] = -1, last
        if len(stop_ids) <= STOP_IDS:
            self.ends_SX[slot, 1 : 1 + len(stop_ids)] = list(stop_ids)
        self._newcomers.add(slot)
        return slot

    def free(self, slot: int) -> None:
        """Give a slot back."""
        self._free.append(slot)

    def write(self, slot: int, blocks: Sequence[int]) -> None:
        """The blocks that a sequence has by now: those it had, and others behind them."""
        written = self._written[slot]
        if written < len(blocks):
            self.rows_SW[slot, written : len(blocks)] = blocks[written:]
            self._written[slot] = len(blocks)
            self._changed.add(slot)

    def changes(self) -> tuple[list[int], int]:
        """The slots that were written since this was last asked, and the most blocks that one of them has."""
        changed = sorted(self._changed)
        self._changed.clear()
        return changed, max((self._written[slot] for slot in changed), default=0)

    def newcomers(self) -> list[int]:
        """The slots that were taken since this was last asked."""
        newcomers = sorted(self._newcomers)
        self._newcomers.clear()
        return newcomers
