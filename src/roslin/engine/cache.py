"""The memory of keys and values: for every layer blocks that any sequence may be given."""

import torch
from torch import Tensor

from roslin.engine.blocks import BLOCK
from roslin.engine.cpu.memory import zeros
from roslin.engine.queries import Layer
from roslin.errors import InputError, MachineError, out_of_memory
from roslin.model import ModelConfig
from roslin.model.fp8 import FP8, has_fp8_cores


def as_kept(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers as a cache of that dtype keeps them: in fp8 none is beyond the greatest there is."""
    if dtype != FP8:
        return x.to(dtype)
    most = torch.finfo(FP8).max
    return x.clamp(-most, most).to(FP8)


def raw(x: Tensor) -> Tensor:
    """Fp8 as bytes, which torch moves about where it does not move fp8; anything else as it is."""
    return x.view(torch.uint8) if x.dtype == FP8 else x


def check_kept(dtype: torch.dtype, usual: torch.dtype, device: torch.device) -> None:
    """Raise InputError where a cache keeps neither its `usual` numbers nor fp8, MachineError where a GPU has no fp8."""
    if dtype not in (FP8, usual):
        raise InputError(f"cache_dtype is {dtype}; a cache of this model keeps {usual} or {FP8}.")
    if dtype == FP8 and device.type == "cuda" and not has_fp8_cores(device):
        raise MachineError(
            f"{torch.cuda.get_device_name(device)} has no fp8 (L4, RTX 40, H100 and later have): "
            "leave the cache as it is."
        )


class KVCache:
    """For every layer keys and values, each [blocks, kv_heads, BLOCK, head_dim]; blocks are added as they are needed.

    Unused places are zeros, never rubbish: a masked place weighs 0, and 0 times NaN would still be NaN.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> None:
        """Start empty. `dtype` is that of keys and values: the weights', or FP8."""
        self._config = config
        self.window = config.window
        self.heads = (config.heads, config.kv_heads, config.kv_heads)
        """Of queries, keys and values."""
        self.dtype, self.device = dtype, device
        self.layers: list[Layer] = []
        self.blocks = 0

    def fits(self, dtype: torch.dtype, device: torch.device) -> bool:
        """Whether this cache keeps such numbers, there."""
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

    def sequence(self, layer: int, blocks_W: Tensor, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values of one sequence in a dtype, copied together, each [length, kv_heads, head_dim]."""
        copies = (raw(kept).index_select(0, blocks_W).view(kept.dtype) for kept in self.layers[layer])
        keys, values = (copy.to(dtype) for copy in copies)
        return keys.transpose(1, 2).flatten(0, 1)[:length], values.transpose(1, 2).flatten(0, 1)[:length]

    def _made(self, blocks: int, old: Layer | None) -> Layer:
        shape = (blocks, self._config.kv_heads, BLOCK, self._config.head_dim)
        keys, values = (zeros(shape, self.dtype, self.device) for _ in range(2))
        if old is not None:
            raw(keys)[: len(old[0])], raw(values)[: len(old[1])] = raw(old[0]), raw(old[1])
        return keys, values
