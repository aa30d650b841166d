"""Who sees whom in one pass on a GPU, by Triton's kernels over the paged cache. To be imported only where Triton is."""

import math
from dataclasses import dataclass
from functools import cache

import torch
import triton
from torch import Tensor

from roslin.engine.blocks import BLOCK
from roslin.engine.cache import KVCache
from roslin.engine.gpu import attention, shared_prefix
from roslin.model.rotary import Turns

PROGRAMS = 1024
"""Programs that fill the largest GPUs: while there are fewer, each sequence's places are split."""
MOST_SPLITS = 32
NUMBERS = 4096
"""Of keys in a tile: 128 threads hold them, the values and what they gather in registers."""
WARPS = 4
RUN = 64
"""Tokens of a prompt that one program answers."""


MANY = 128
"""Tokens that come alone of which even those that share a beginning are many programs."""
ROWS = 32
"""Queries that read a shared beginning together."""


class Scratch:
    """Where the programs that share a query leave their parts; the last of them weighs these together.

    It is as large as it can ever have to be: a captured graph knows where it lies.
    """

    def __init__(self, heads: int, groups: int, head_dim: int, device: torch.device) -> None:
        """Of so many queries and keys a token."""
        several, width = _padded(heads // groups, head_dim)
        self.parts = torch.empty(PROGRAMS * several * width, device=device)
        self.sums = torch.empty(PROGRAMS * several * 2, device=device)
        self.counts = torch.zeros(PROGRAMS, dtype=torch.int32, device=device)


_scratch = cache(Scratch)


@dataclass(frozen=True)
class SharedPlaces:
    """What tokens that come alone share, int32, on the device: `commons_N` and `tiles_TX` as in `beginnings.Shared`.

    A tile is read in `shares` parts.
    """

    commons_N: Tensor
    tiles_TX: Tensor
    shares: int


@dataclass(frozen=True)
class Tokens:
    """The tokens of a pass: first those of sequences that come alone, then runs that follow each other.

    `slots_N` and `positions_N` are integers; a position below 0 makes a token nobody's. `runs_T4` [tiles, 4], int32,
    cuts the runs into tiles of at most RUN tokens of one sequence: their first token's place in the stream, how many
    there are, the first one's position, and the slot. None: all come alone, and no one reads what another one writes.
    """

    slots_N: Tensor
    positions_N: Tensor
    alone: int
    runs_T4: Tensor | None
    reach_N: Tensor | None = None
    """How long each token's sequence is as of this pass, where that is more than what stands before it."""
    shared: SharedPlaces | None = None
    """What those that come alone share; not where the model sees only so far back."""


class GpuAttention:
    """An `Attend` for the decoder; `tables_SW` holds each slot's blocks, int32, on the device."""

    def __init__(self, cache: KVCache, tables_SW: Tensor, tokens: Tokens) -> None:
        self._cache, self._tables_SW, self._tokens = cache, tables_SW, tokens
        self._heads, self._groups, _ = cache.heads
        self._scratch = _scratch(self._heads, self._groups, cache.layers[0][0].shape[3], cache.device)

    @property
    def parts(self) -> tuple[KVCache, Tensor, Tokens]:
        """What it was made of."""
        return self._cache, self._tables_SW, self._tokens

    def __call__(self, layer: int, q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor) -> Tensor:
        """Remember the keys and values; what each token gathers, [N, H, K]."""
        out_NHK = q_NHK.new_empty(q_NHK.shape)
        self.from_qkv(layer, _beside(q_NHK, k_NGK, v_NGK), None, out_NHK.flatten(1))
        return out_NHK

    def from_qkv(self, layer: int, qkv_NA: Tensor, turns: Turns | None, out_NA: Tensor, *, early: bool = False) -> None:
        """Turn queries and keys of `qkv_NA` [N, (H + 2 G) * K], remember keys and values, gather into `out_NA`.

        Rows of both may lie apart; `out_NA` is [N, H * K]. Without `turns` they are turned already. Where `early`, one
        kernel for all is launched while that before it ends.
        """
        tokens = self._tokens
        runs_T4 = tokens.runs_T4
        if runs_T4 is None:
            self._attend_alone(layer, qkv_NA, turns, out_NA, fused=True, early=early)
            return
        q_NA = self._written(layer, qkv_NA, turns)
        if tokens.alone:
            self._attend_alone(layer, q_NA, None, out_NA, fused=False)
        if len(runs_T4):
            self._attend_runs(layer, runs_T4, q_NA, out_NA)

    def reach(self, positions_N: Tensor) -> Tensor:
        """How long each token's sequence is as of this pass, [N]."""
        return positions_N + 1 if self._tokens.reach_N is None else self._tokens.reach_N

    def _attend_alone(
        self, layer: int, qkv_NA: Tensor, turns: Turns | None, out_NA: Tensor, *, fused: bool, early: bool = False
    ) -> None:
        keys, values = self._cache.layers[layer]
        tokens, groups, head_dim = self._tokens, self._groups, keys.shape[3]
        shared = self._heads // groups
        several, width = _padded(shared, head_dim)
        splits = _splits(tokens.alone * groups)
        cos, sin, turn_stride, turning, interleaved = _how(turns, qkv_NA)
        work, common = self._scratch, tokens.shared
        common_parts, common_sums = work.parts, work.sums
        if common is not None:
            common_parts, common_sums = self._of_shared(layer, common, qkv_NA, turns)
        operands = (
            out_NA, work.parts, work.sums, work.counts, qkv_NA, keys, values, self._tables_SW, tokens.slots_N,
            tokens.positions_N, cos, sin, tokens.positions_N if common is None else common.commons_N,
            common_parts, common_sums, out_NA.stride(0), qkv_NA.stride(0), self._tables_SW.stride(0), turn_stride,
            self._cache.window or 0, head_dim**-0.5 / math.log(2), groups,
        )  # fmt: skip
        shape = (head_dim, turning, interleaved, fused, splits, BLOCK)
        grid = (tokens.alone, groups, splits)
        told = {"launch_pdl": True} if early else {}
        shares = 0 if common is None else common.shares
        if shared == 1:
            tile = min(64, max(BLOCK, NUMBERS // width))
            attention.attend_one[grid](*operands, *shape, tile, width, early, shares, num_warps=WARPS, **told)
        else:
            precision = "ieee" if qkv_NA.dtype == torch.float32 else "tf32"
            tile = 32 if width > 128 else 64
            attention.attend_shared[grid](
                *operands, shared, *shape, tile, width, several, precision, early, shares, num_warps=4, **told
            )

    def _of_shared(
        self, layer: int, common: SharedPlaces, qkv_NA: Tensor, turns: Turns | None
    ) -> tuple[Tensor, Tensor]:
        """What each query gathers of the places that it shares, in parts: values [N * H * shares, K], two sums each."""
        keys, values = self._cache.layers[layer]
        head_dim, alone, tiles_TX = keys.shape[3], self._tokens.alone, common.tiles_TX
        width, count = max(16, triton.next_power_of_2(head_dim)), alone * self._heads * common.shares
        parts = torch.empty(count, width, device=qkv_NA.device)
        sums = torch.empty(count, 2, device=qkv_NA.device)
        cos, sin, turn_stride, turning, interleaved = _how(turns, qkv_NA)
        shared_prefix.attend_prefix[(len(tiles_TX), self._groups, common.shares)](
            parts, sums, qkv_NA, keys, values, self._tables_SW, tiles_TX, cos, sin,
            qkv_NA.stride(0), self._tables_SW.stride(0), tiles_TX.stride(0), turn_stride, head_dim**-0.5 / math.log(2),
            self._groups, self._heads // self._groups, head_dim, turning, interleaved, common.shares, BLOCK,
            ROWS, 64 if width <= 128 else 32, width, "ieee" if qkv_NA.dtype == torch.float32 else "tf32", num_warps=4,
        )  # fmt: skip
        return parts, sums

    def _written(self, layer: int, qkv_NA: Tensor, turns: Turns | None) -> Tensor:
        """Put keys and values into the cache; the turned queries, [N, H * K]."""
        keys, values = self._cache.layers[layer]
        head_dim, tokens = keys.shape[3], self._tokens
        q_NA = qkv_NA.new_empty(len(qkv_NA), self._heads * head_dim)
        cos, sin, turn_stride, turning, interleaved = _how(turns, qkv_NA)
        several = 8
        parts = triton.cdiv(self._heads, several) + triton.cdiv(self._groups, several)
        attention.turn_and_write[(len(qkv_NA), parts)](
            q_NA, qkv_NA, keys, values, self._tables_SW, tokens.slots_N, tokens.positions_N, cos, sin,
            q_NA.stride(0), qkv_NA.stride(0), self._tables_SW.stride(0), turn_stride, self._heads, self._groups,
            head_dim, turning, interleaved, BLOCK, several, triton.next_power_of_2(head_dim), num_warps=2,
        )  # fmt: skip
        return q_NA

    def _attend_runs(self, layer: int, runs_T4: Tensor, q_NA: Tensor, out_NA: Tensor) -> None:
        keys, values = self._cache.layers[layer]
        head_dim = keys.shape[3]
        width = max(16, triton.next_power_of_2(head_dim))
        precision = "ieee" if q_NA.dtype == torch.float32 else "tf32"
        attention.attend_run[(len(runs_T4), self._heads)](
            out_NA, q_NA, keys, values, self._tables_SW, runs_T4, out_NA.stride(0), q_NA.stride(0),
            self._tables_SW.stride(0), self._cache.window or 0, head_dim**-0.5 / math.log(2), self._groups,
            self._heads // self._groups, head_dim, BLOCK, RUN, 64 if width <= 128 else 32, width, precision,
            num_warps=4 if width <= 128 else 8,
        )  # fmt: skip


def _padded(shared: int, head_dim: int) -> tuple[int, int]:
    """Rows and columns of the queries that share a key, as the kernels have them."""
    several = 1 if shared == 1 else max(16, triton.next_power_of_2(shared))
    return several, max(16, triton.next_power_of_2(head_dim))


def members(heads: int, groups: int) -> int:
    """Tokens that read a shared beginning together; fewer than 2: their queries are too many for that."""
    return ROWS * groups // heads


def shares(rows: int) -> int:
    """Parts in which a shared beginning is read in a pass of so many tokens, that all programs fill a GPU."""
    return 1 if rows >= MANY else 4


def _splits(pairs: int) -> int:
    """So many that all programs fill a GPU: a power of 2."""
    wanted = max(1, min(MOST_SPLITS, PROGRAMS // max(1, pairs)))
    return 1 << (wanted.bit_length() - 1)


def _how(turns: Turns | None, x: Tensor) -> tuple[Tensor, Tensor, int, int, bool]:
    """Cosines, sines, how far their rows are apart, how many numbers of a head turn, and whether as neighbours."""
    if turns is None:
        return x, x, 0, 0, False
    dims = turns.cos.shape[-2] * turns.cos.shape[-1]
    return turns.cos, turns.sin, turns.cos.stride(0), dims, turns.interleaved


def _beside(q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor) -> Tensor:
    """Queries, keys and values of a token one behind the other, [N, (H + 2 G) * K]; mostly they lie so already."""
    tokens, heads, head_dim = q_NHK.shape
    groups, size = k_NGK.shape[1], q_NHK.element_size() * head_dim
    strides = {x.stride() for x in (q_NHK, k_NGK, v_NGK)}
    follow = k_NGK.data_ptr() == q_NHK.data_ptr() + heads * size
    follow = follow and v_NGK.data_ptr() == k_NGK.data_ptr() + groups * size
    if follow and strides == {(q_NHK.stride(0), head_dim, 1)}:
        return q_NHK.as_strided((tokens, (heads + 2 * groups) * head_dim), (q_NHK.stride(0), 1))
    return torch.cat((q_NHK, k_NGK, v_NGK), 1).flatten(1)
