"""Places for running sequences in the table of blocks that attention reads."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from roslin.engine.blocks import blocks_for


class Slots:
    """A row of block numbers for each running sequence, [slots, blocks of the longest], int32."""

    def __init__(self, slots: int, positions: int) -> None:
        """All free; a sequence may have up to `positions` tokens."""
        self.rows_SW: npt.NDArray[np.int32] = np.zeros((slots, blocks_for(positions)), dtype=np.int32)
        self.taken = 0
        """How often a slot was taken: while that stays the same, so do the sequences in their slots."""
        self._free = list(range(slots))[::-1]
        self._written = [0] * slots
        self._changed: set[int] = set()

    @property
    def any_free(self) -> bool:
        """Whether another sequence has a place."""
        return bool(self._free)

    def take(self) -> int:
        """A free slot, the lowest."""
        slot = self._free.pop()
        self.taken += 1
        self._written[slot] = 0
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
