"""Who sees whom in one pass of the engine, over the paged cache."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from roslin.engine.blocks import BLOCK, blocks_for
from roslin.engine.cache import KVCache, as_kept
from roslin.engine.cpu.attention import CppAttention, has_kernel
from roslin.engine.gathered import GatheredAttention
from roslin.engine.queries import Kernel, Queries
from roslin.model.rotary import Turns


@dataclass(frozen=True)
class Span:
    """Tokens `start` to `stop` of a slot's sequence, which come in one pass; `prompt` is how long its prompt is."""

    slot: int
    start: int
    stop: int
    prompt: int

    @property
    def count(self) -> int:
        """How many tokens."""
        return self.stop - self.start


def kernel_for(dtype: torch.dtype, device: torch.device) -> Kernel:
    """The fastest way to read the cache there is, for passes laid out here."""
    return CppAttention() if device.type == "cpu" and has_kernel(dtype) else GatheredAttention()


class PagedAttention:
    """An `Attend` for the decoder. The stream is the spans' tokens, one span after the other, the shortest spans first.

    Every token's keys and values are written before any is read, so a span may read what another one of the same pass
    computes. A token sees its own sequence, up to itself, as far back as the model's window.
    """

    def __init__(self, cache: KVCache, kernel: Kernel, rows_SW: npt.NDArray[np.int32], spans: Sequence[Span]) -> None:
        """Work out once a pass what every layer needs; `rows_SW` are the slots' blocks."""
        self.cache, self.rows_SW, self.spans = cache, rows_SW, spans
        self._kernel = kernel
        self._heads = cache.heads
        self._single = sum(span.count for span in spans if span.count <= kernel.chunk)
        slots_N, positions_N = _laid_out(spans)
        places_N = rows_SW[slots_N, positions_N // BLOCK].astype(np.int64) * BLOCK + positions_N % BLOCK
        self.positions_N = self._sent(positions_N)
        self._places_N = self._sent(places_N)
        if self._single:
            self._queries = self._asked(rows_SW, slots_N[: self._single], positions_N[: self._single] + 1)
        self._chunks = [_Chunk(cache, rows_SW[span.slot], span) for span in spans if span.count > kernel.chunk]

    def __call__(self, layer: int, q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor) -> Tensor:
        """Remember the keys and values; what each token gathers, [N, H, K]."""
        kept = self.cache.layers[layer]
        if self._chunks and self.cache.dtype != q_NHK.dtype:  # everybody sees what those will who come later
            k_NGK, v_NGK = (as_kept(x_NGK, self.cache.dtype).to(q_NHK.dtype) for x_NGK in (k_NGK, v_NGK))
        self._kernel.write(kept, k_NGK, v_NGK, self._places_N)
        if not self._chunks:
            return self._kernel.attend(kept, q_NHK, self._queries)
        outs = [self._kernel.attend(kept, q_NHK[: self._single], self._queries)] if self._single else []
        start = self._single
        for chunk in self._chunks:
            own = slice(start, start + chunk.span.count)
            outs.append(chunk.attend(self._kernel, layer, q_NHK[own], k_NGK[own], v_NGK[own]))
            start = own.stop
        return torch.cat(outs)

    def from_qkv(self, layer: int, qkv_NA: Tensor, turns: Turns, out_NA: Tensor, *, early: bool = False) -> None:
        """Turn queries and keys in `qkv_NA` [N, (H + 2 G) * K], remember keys and values, and gather into `out_NA`.

        Rows of both may lie apart; `qkv_NA` may hold anything afterwards. `out_NA` is [N, H * K].
        """
        heads_NGK = turns.apply(qkv_NA.view(len(qkv_NA), sum(self._heads), -1))
        out_NA.copy_(self(layer, *heads_NGK.split_with_sizes(self._heads, 1)).flatten(1))

    def reach(self, positions_N: Tensor) -> Tensor:
        """A prompt's tokens all see its whole length; those after it end their sequence."""
        counts = torch.tensor([span.count for span in self.spans])
        prompts_N = torch.tensor([span.prompt for span in self.spans]).repeat_interleave(counts)
        return torch.maximum(prompts_N.to(positions_N.device), positions_N + 1)

    def _sent(self, numbers: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(numbers).to(self.cache.device)

    def _asked(
        self, rows_SW: npt.NDArray[np.int32], slots_M: npt.NDArray[np.int64], lengths_M: npt.NDArray[np.int64]
    ) -> Queries:
        device, longest = self.cache.device, int(lengths_M.max())
        if device.type != "cpu":
            rows_SW = rows_SW[: int(slots_M.max()) + 1, : blocks_for(longest)]
        slots, lengths = torch.from_numpy(np.array([slots_M, lengths_M], dtype=np.int32)).to(device)
        return Queries(torch.from_numpy(rows_SW).to(device), slots, lengths, longest, self.cache.window)


def _laid_out(spans: Sequence[Span]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The slot and the position of every token."""
    slots, starts = np.array([span.slot for span in spans]), np.array([span.start for span in spans])
    if spans[-1].count == 1:  # they come the shortest first
        return slots, starts
    positions_N = np.concatenate([np.arange(span.start, span.stop) for span in spans])
    return np.repeat(slots, [span.count for span in spans]), positions_N


class _Chunk:
    """A longer run of one sequence's tokens, such as a prompt: attention over what is before it, and itself."""

    def __init__(self, cache: KVCache, row_W: npt.NDArray[np.int32], span: Span) -> None:
        self.span = span
        self._cache = cache
        if span.start:
            self._blocks_W = torch.from_numpy(row_W[: blocks_for(span.stop)]).to(cache.device)

    def attend(self, kernel: Kernel, layer: int, q_CHK: Tensor, k_CGK: Tensor, v_CGK: Tensor) -> Tensor:
        """What each token gathers, [C, H, K]."""
        k_TGK, v_TGK = k_CGK, v_CGK
        if self.span.start:
            k_TGK, v_TGK = self._cache.sequence(layer, self._blocks_W, self.span.stop, q_CHK.dtype)
        return kernel.attend_last(q_CHK, k_TGK, v_TGK, self._cache.window)
