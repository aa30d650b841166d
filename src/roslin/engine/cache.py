"""Keys and values of running sequences, one slot each, and the attention that reads them."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from roslin.errors import MachineError, out_of_memory
from roslin.model import ModelConfig
from roslin.model.attention import causal

_FIRST_POSITIONS = 64


class KVCache:
    """For every layer keys and values [slots, kv_heads, positions, head_dim]; slots and positions grow as needed.

    Unused places are zeros, never rubbish: a masked place weighs 0, and 0 times NaN would still be NaN.
    On a CPU both are kept in float32 whatever the weights' dtype: torch's attention of one query over bfloat16 keys is
    up to five times slower there (bench/cpu_decode.py, batch of 16).
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device, most_slots: int) -> None:
        """Start empty; the first `ensure` allocates. `dtype` is that of the weights."""
        self._config = config
        self.window = config.window
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
        shape = (slots, self._config.kv_heads, positions, self._config.head_dim)
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
    whole prompts of new sequences, which take the slots after them. Queries see their own sequence, up to themselves,
    as far back as the model's window.
    """

    def __init__(self, cache: KVCache, lengths: Sequence[int], prompts: Sequence[int]) -> None:
        """Work out once a pass what every layer needs."""
        self._layers = cache.layers
        self._window = cache.window
        self._decoding = len(lengths)
        self._decoded = cache.first(len(lengths))
        self._prompts = prompts
        self._longest = max(lengths, default=0)
        self._last: int | None = lengths[0] - 1 if lengths and min(lengths) == self._longest else None
        self._first = 0
        self._seen_n11T: Tensor | None = None
        if self._last is not None and self._window is not None:
            self._first = max(0, self._longest - self._window)
        elif lengths and self._last is None:
            self._see_by_lengths(torch.tensor(lengths, device=cache.layers[0][0].device))

    def __call__(self, layer: int, q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor) -> Tensor:
        """Remember the keys and values; what each token gathers, [N, H, K]."""
        n = self._decoding
        if not self._prompts:
            return self._step(layer, q_NHK, k_NGK, v_NGK)
        outs = [self._step(layer, q_NHK[:n], k_NGK[:n], v_NGK[:n])] if n else []
        start = n
        for slot, length in enumerate(self._prompts, n):
            run = slice(start, start + length)
            outs.append(self._prompt(layer, slot, q_NHK[run], k_NGK[run], v_NGK[run]))
            start += length
        return torch.cat(outs)

    def reach(self, positions_N: Tensor) -> Tensor:
        """A decoding sequence ends with its token; a prompt's tokens all see its whole length."""
        prompts = torch.tensor(self._prompts, dtype=torch.long, device=positions_N.device)
        return torch.cat([positions_N[: self._decoding] + 1, prompts.repeat_interleave(prompts)])

    def _see_by_lengths(self, lengths_n: Tensor) -> None:
        """The places of each decoding sequence, where they are not all of one length."""
        places_T = torch.arange(self._longest, device=lengths_n.device)
        self._slots_n = torch.arange(self._decoding, device=lengths_n.device)
        self._places_n = lengths_n - 1
        seen_nt = places_T < lengths_n[:, None]
        if self._window is not None:
            seen_nt &= places_T >= lengths_n[:, None] - self._window
        self._seen_n11T = seen_nt[:, None, None]

    def _step(self, layer: int, q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor) -> Tensor:
        keys, values = self._decoded[layer]
        if self._last is None:
            keys[self._slots_n, :, self._places_n] = k_NGK.to(keys.dtype)
            values[self._slots_n, :, self._places_n] = v_NGK.to(values.dtype)
        else:
            keys.select(2, self._last).copy_(k_NGK)
            values.select(2, self._last).copy_(v_NGK)
        # The queries that share a key stand as if they were several tokens of one head.
        q_NGSK = q_NHK.to(keys.dtype).reshape(len(q_NHK), keys.shape[1], -1, q_NHK.shape[-1])
        seen = slice(self._first, self._longest)
        out_NGSK = F.scaled_dot_product_attention(
            q_NGSK, keys[:, :, seen], values[:, :, seen], attn_mask=self._seen_n11T
        )
        return out_NGSK.flatten(1, 2).to(q_NHK.dtype)

    def _prompt(self, layer: int, slot: int, q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor) -> Tensor:
        keys, values = self._layers[layer]
        keys[slot, :, : len(k_TGK)] = k_TGK.transpose(0, 1)
        values[slot, :, : len(v_TGK)] = v_TGK.transpose(0, 1)
        return causal(q_THK[None], k_TGK[None], v_TGK[None], self._window)[0]
