"""Keys and values of running sequences, one slot each, and the attention that reads them."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from roslin.errors import MachineError, out_of_memory
from roslin.model import ModelConfig

_FIRST_POSITIONS = 64


class KVCache:
    """For every layer keys and values [slots, heads, positions, head_dim]; slots and positions grow as they are needed.

    Unused places are zeros, never rubbish: a masked place weighs 0, and 0 times NaN would still be NaN.
    On a CPU both are kept in float32 whatever the weights' dtype: torch's attention of one query over bfloat16 keys is
    up to five times slower there (bench/cpu_decode.py, batch of 16).
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device, most_slots: int) -> None:
        """Start empty; the first `ensure` allocates. `dtype` is that of the weights."""
        self._config = config
        self._most_slots = most_slots
        self._weights_dtype, self._device = dtype, device
        self._dtype = torch.float32 if device.type == "cpu" else dtype
        self.layers: list[tuple[Tensor, Tensor]] = []
        self._first: tuple[int, list[tuple[Tensor, Tensor]]] | None = None
        self.slots = self.positions = 0

    def fits(self, dtype: torch.dtype, device: torch.device) -> bool:
        """Whether this cache was made for such weights."""
        return self._weights_dtype == dtype and self._device == device

    def ensure(self, slots: int, positions: int, most_positions: int) -> None:
        """Have room for so many slots and positions. Both grow by doubling, up to the most that can be needed."""
        if slots > self.slots or positions > self.positions:
            self._grow(
                _grown(self.slots, slots, self._most_slots),
                _grown(self.positions, max(positions, min(_FIRST_POSITIONS, most_positions)), most_positions),
            )

    def first(self, slots: int) -> list[tuple[Tensor, Tensor]]:
        """The keys and values of the first slots, layer by layer; made anew only when slots or memory change."""
        if self._first is None or self._first[0] != slots:
            self._first = (slots, [(keys[:slots], values[:slots]) for keys, values in self.layers])
        return self._first[1]

    @torch.inference_mode()
    def move(self, source: int, target: int, length: int) -> None:
        """Copy one sequence's first `length` positions to another slot."""
        for keys, values in self.layers:
            keys[target, :, :length] = keys[source, :, :length]
            values[target, :, :length] = values[source, :, :length]

    def clear(self) -> None:
        """Give all memory back."""
        self.layers, self._first, self.slots, self.positions = [], None, 0, 0

    def _grow(self, slots: int, positions: int) -> None:
        """Layer by layer, so that old and new are never both whole."""
        shape = (slots, self._config.heads, positions, self._config.head_dim)
        old, self.layers, self._first = self.layers, [], None
        try:
            for layer in range(self._config.layers):
                pair = (self._zeros(shape), self._zeros(shape))
                if old:
                    for new, kept in zip(pair, old[layer], strict=True):
                        new[: self.slots, :, : self.positions] = kept
                    old[layer] = pair
                self.layers.append(pair)
        except (RuntimeError, MemoryError) as error:
            self.clear()
            if not out_of_memory(error):
                raise
            need = 2 * self._config.layers * torch.Size(shape).numel() * self._dtype.itemsize
            raise MachineError(
                f"No memory on {self._device} for the keys and values of {slots} sequences of {positions} tokens "
                f"({need / 2**30:.1f} GiB). Ask for fewer new tokens or a smaller batch."
            ) from error
        self.slots, self.positions = slots, positions

    def _zeros(self, shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(shape, dtype=self._dtype, device=self._device)


def _grown(held: int, needed: int, most: int) -> int:
    return held if needed <= held else max(needed, min(2 * held, most))


class CachedAttention:
    """Who sees whom in one pass of the engine; an `Attend` for the decoder.

    The stream is first one token of each decoding sequence (in slots 0, 1, …; `lengths` count that token too), then
    whole prompts of new sequences, which take the slots after them. Queries see their own sequence, up to themselves.
    """

    def __init__(self, cache: KVCache, lengths: Sequence[int], prompts: Sequence[int]) -> None:
        """Work out once a pass what every layer needs."""
        self._layers = cache.layers
        self._decoding = len(lengths)
        self._decoded = cache.first(len(lengths))
        self._prompts = prompts
        self._longest = max(lengths, default=0)
        self._last: int | None = lengths[0] - 1 if lengths and min(lengths) == self._longest else None
        if lengths and self._last is None:
            device = cache.layers[0][0].device
            lengths_n = torch.tensor(lengths, device=device)
            self._slots_n = torch.arange(self._decoding, device=device)
            self._places_n = lengths_n - 1
            self._seen_n11T = (torch.arange(self._longest, device=device) < lengths_n[:, None])[:, None, None]

    def __call__(self, layer: int, q_NHK: Tensor, k_NHK: Tensor, v_NHK: Tensor) -> Tensor:
        """Remember the keys and values; what each token gathers, [N, H, K]."""
        n = self._decoding
        if not self._prompts:
            return self._step(layer, q_NHK, k_NHK, v_NHK)
        outs = [self._step(layer, q_NHK[:n], k_NHK[:n], v_NHK[:n])] if n else []
        start = n
        for slot, length in enumerate(self._prompts, n):
            run = slice(start, start + length)
            outs.append(self._prompt(layer, slot, q_NHK[run], k_NHK[run], v_NHK[run]))
            start += length
        return torch.cat(outs)

    def _step(self, layer: int, q_NHK: Tensor, k_NHK: Tensor, v_NHK: Tensor) -> Tensor:
        keys, values = self._decoded[layer]
        seen = None
        if self._last is None:
            keys[self._slots_n, :, self._places_n] = k_NHK.to(keys.dtype)
            values[self._slots_n, :, self._places_n] = v_NHK.to(values.dtype)
            seen = self._seen_n11T
        else:
            keys.select(2, self._last).copy_(k_NHK)
            values.select(2, self._last).copy_(v_NHK)
        q_NH1K = q_NHK.unsqueeze(2).to(keys.dtype)
        keys, values = keys.narrow(2, 0, self._longest), values.narrow(2, 0, self._longest)
        out_NH1K = F.scaled_dot_product_attention(q_NH1K, keys, values, attn_mask=seen)
        return out_NH1K.squeeze(2).to(q_NHK.dtype)

    def _prompt(self, layer: int, slot: int, q_THK: Tensor, k_THK: Tensor, v_THK: Tensor) -> Tensor:
        keys, values = self._layers[layer]
        q, k, v = (x.transpose(0, 1) for x in (q_THK, k_THK, v_THK))
        keys[slot, :, : k.shape[1]] = k
        values[slot, :, : v.shape[1]] = v
        return F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0].transpose(0, 1)
