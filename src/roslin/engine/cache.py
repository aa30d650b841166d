"""The memory of keys and values: for every layer blocks that any sequence may be given."""

import torch
from torch import Tensor

from roslin.engine.blocks import BLOCK
from roslin.engine.queries import Layer
from roslin.errors import out_of_memory
from roslin.model import ModelConfig


class KVCache:
    """For every layer keys and values, each [blocks, kv_heads, BLOCK, head_dim]; blocks are added as they are needed.

    Unused places are zeros, never rubbish: a masked place weighs 0, and 0 times NaN would still be NaN.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> None:
        """Start empty. `dtype` is that of the weights."""
        self._config = config
        self.window = config.window
        self.heads = (config.heads, config.kv_heads, config.kv_heads)
        """Of queries, keys and values."""
        self.dtype, self.device = dtype, device
        self.layers: list[Layer] = []
        self.blocks = 0

    def fits(self, dtype: torch.dtype, device: torch.device) -> bool:
        """Whether this cache was made for such weights."""
        return self.dtype == dtype and self.device == device

    def provide(self, blocks: int) -> bool:
        """Have so many blocks, the content of the old ones kept; False, and nothing lost, where memory is lacking.

        Layer by layer, so that old and new are never both whole.
        """
        try:
            for layer in range(self._config.layers):
                old = self.layers[layer] if layer < len(self.layers) else None
                if old is None or len(old[0]) < blocks:
                    self.layers[layer : layer + 1] = [self._made(blocks, old)]
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return False
        self.blocks = blocks
        return True

    def clear(self) -> None:
        """Give all memory back."""
        self.layers, self.blocks = [], 0

    def sequence(self, layer: int, blocks_W: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one sequence, copied together, each [length, kv_heads, head_dim]."""
        keys, values = (kept.index_select(0, blocks_W) for kept in self.layers[layer])
        return keys.transpose(1, 2).flatten(0, 1)[:length], values.transpose(1, 2).flatten(0, 1)[:length]

    def _made(self, blocks: int, old: Layer | None) -> Layer:
        shape = (blocks, self._config.kv_heads, BLOCK, self._config.head_dim)
        keys, values = (torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in range(2))
        if old is not None:
            keys[: len(old[0])], values[: len(old[1])] = old
        return keys, values
