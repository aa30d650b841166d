"""The blocks of one sequence."""

from collections.abc import Callable

from roslin.engine.blocks import BLOCK, BlockPool, Name, blocks_for, named


class BlockTable:
    """The blocks of one sequence, in its order, and how far they are filled."""

    def __init__(self, pool: BlockPool, content: Callable[[int, int], bytes]) -> None:
        """`content(start, stop)` is all that decides the keys and values of these tokens, beside those before them."""
        self.blocks: list[int] = []
        self._pool = pool
        self._content = content
        self._named = 0
        self._last_name: Name = b""

    def share(self, tokens: int) -> int:
        """Hold what others have of the first `tokens`; how many tokens that is. To be asked of an empty one."""
        while (self._named + 1) * BLOCK <= tokens:
            name = self._next_name()
            block = self._pool.find(name)
            if block is None:
                break
            self.blocks.append(block)
            self._named, self._last_name = self._named + 1, name
        return self._named * BLOCK

    def missing(self, tokens: int) -> int:
        """How many blocks it lacks for so many tokens."""
        return max(0, blocks_for(tokens) - len(self.blocks))

    def extend(self, tokens: int) -> bool:
        """Have room for so many tokens; False, and nothing changed, where blocks are lacking."""
        missing = self.missing(tokens)
        if not missing:
            return True
        taken = self._pool.take(missing)
        self.blocks += taken or []
        return taken is not None

    def fill(self, tokens: int) -> None:
        """Say that the first `tokens` have their keys and values, or will have when the pass at hand has run."""
        while (self._named + 1) * BLOCK <= tokens:
            name = self._next_name()
            self._pool.name(self.blocks[self._named], name)
            self._named, self._last_name = self._named + 1, name

    def release(self) -> None:
        """Hold nothing any more."""
        self._pool.release(self.blocks)
        self.blocks, self._named, self._last_name = [], 0, b""

    def _next_name(self) -> Name:
        return named(self._last_name, self._content(self._named * BLOCK, (self._named + 1) * BLOCK))
