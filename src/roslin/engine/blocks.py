"""The cache's blocks as numbers: who holds which, which are free, and which hold the beginning that somebody needs."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

BLOCK = 16
"""Tokens of a block. Dolly's prompts are about a hundred tokens long: half of a last block stays empty on average."""
FIRST_BLOCKS = 64

Name = bytes
"""What decides the keys and values of a full block: its tokens and all before them."""


def named(before: Name, content: bytes) -> Name:
    """The name of a full block that stands behind the one named `before` (empty for a first block): 128 bits."""
    return hashlib.blake2b(before + content, digest_size=16).digest()


class BlockPool:
    """Counts references to blocks 0 … size - 1.

    A full block can have a name, by which other sequences that begin alike find it. It keeps its name when nobody
    holds it any more, until its place is needed: the one that has been left longest goes first. Full blocks are never
    written again, and only full ones are shared, so nothing is ever copied when it is written.
    """

    def __init__(self, limit: int, make: Callable[[int], bool]) -> None:
        """Start empty and grow up to `limit` blocks; `make(size)` provides memory for so many, or says that it cannot.

        Where it cannot, the limit is what there is.
        """
        self.limit = limit
        self.size = 0
        self._make = make
        self._blank: list[int] = []
        self._left: OrderedDict[int, None] = OrderedDict()
        self._references: list[int] = []
        self._by_name: dict[Name, int] = {}
        self._names: dict[int, Name] = {}

    @property
    def held(self) -> int:
        """How many blocks somebody holds."""
        return self.size - len(self._blank) - len(self._left)

    @property
    def left(self) -> int:
        """How many blocks nobody holds whose content can still be found."""
        return len(self._left)

    @property
    def free(self) -> int:
        """How many blocks can be had: those that nobody holds, and those that can still be made."""
        return self.limit - self.held

    def references(self, block: int) -> int:
        """How many hold a block."""
        return self._references[block]

    def take(self, count: int) -> list[int] | None:
        """So many blocks without a name, held once; None where there are not enough."""
        if count > self.free or not self._provide(count):
            return None
        blocks = [self._blank.pop() for _ in range(count)]
        for block in blocks:
            self._references[block] = 1
        return blocks

    def find(self, name: Name) -> int | None:
        """The block of that name, which is held once more; None where there is none."""
        block = self._by_name.get(name)
        if block is not None:
            self._left.pop(block, None)
            self._references[block] += 1
        return block

    def name(self, block: int, name: Name) -> None:
        """Let others find a block. Where another block has that name already, that one stays the one to be found."""
        if name not in self._by_name:
            self._by_name[name] = block
            self._names[block] = name

    def release(self, blocks: Sequence[int]) -> None:
        """Hold a sequence's blocks no more. Of those left, the last of the sequence will go first."""
        for block in reversed(blocks):
            self._references[block] -= 1
            if self._references[block]:
                continue
            if block in self._names:
                self._left[block] = None
            else:
                self._blank.append(block)

    def make_all(self) -> None:
        """Make all blocks now, so that none has to be moved later; or as many as there is memory for."""
        wanted = self.limit
        while wanted > self.size and not self._add(wanted):
            wanted = (self.size + wanted) // 2
        self.limit = self.size

    def forget(self) -> None:
        """Let no block be found any more: what decides their content has changed."""
        self._by_name.clear()
        self._names.clear()
        self._blank.extend(self._left)
        self._left.clear()

    def _provide(self, count: int) -> bool:
        """Have so many blank blocks.

        While more than half of what there is serves nobody, what is left is given up; else more is made first.
        """
        while len(self._blank) < count:
            if self.size < self.limit and 2 * (self.held + count) > self.size and self._grow(count):
                continue
            if not self._left:
                return False
            self._blank.append(self._give_up())
        return True

    def _grow(self, count: int) -> bool:
        if self._add(min(self.limit, max(2 * self.size, self.size + count, FIRST_BLOCKS))):
            return True
        self.limit = self.size
        return False

    def _add(self, size: int) -> bool:
        if not self._make(size):
            return False
        # Popped from the end: the lowest number first.
        self._blank[:0] = range(size - 1, self.size - 1, -1)
        self._references += [0] * (size - self.size)
        self.size = size
        return True

    def _give_up(self) -> int:
        block, _ = self._left.popitem(last=False)
        del self._by_name[self._names.pop(block)]
        return block


def blocks_for(tokens: int) -> int:
    """How many blocks so many tokens fill."""
    return -(-tokens // BLOCK)
