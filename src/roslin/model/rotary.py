"""Rotary positions: tables made when needed, gathered once a forward pass, applied in three operations a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from roslin.model.scaling import dynamic_frequencies, frequencies

if TYPE_CHECKING:
    from roslin.model.attention import Attend
    from roslin.model.config import ModelConfig

FIRST_ROWS = 8192
"""Rows that a table has at least. All 131,072 of Llama 3.1 would be 134 MB, and most of a second to make."""


@dataclass(frozen=True)
class Turns:
    """The cosines and signed sines of one forward pass's positions, shaped to meet a pair of each dimension.

    A pair (a, b) turns to (a cos - b sin, b cos + a sin): the pair times cos, plus the flipped pair times (-sin, sin).
    Both tensors are [N, 1, 2, R/2] for half-split pairs and [N, 1, R/2, 2] for interleaved ones.
    `turning` is how many heads turn, the first ones: queries and keys.
    """

    cos: Tensor
    sin: Tensor
    interleaved: bool
    turning: int

    def apply(self, qkv_NGK: Tensor) -> Tensor:
        """Turn the queries and keys. Without gradients this happens in place."""
        if torch.is_grad_enabled() and qkv_NGK.requires_grad:
            turned: Tensor = _Turn.apply(qkv_NGK, self.cos, self.sin, self.interleaved, self.turning)  # type: ignore[no-untyped-call]
            return turned
        return _turn_in_place(qkv_NGK, self.cos, self.sin, self.interleaved, self.turning, sign=1)

    def back(self, qkv_NGK: Tensor) -> Tensor:
        """Turn them back, in place: what a gradient needs. Records no gradient itself."""
        with torch.no_grad():
            return _turn_in_place(qkv_NGK, self.cos, self.sin, self.interleaved, self.turning, sign=-1)


class Rotary:
    """The tables of a decoder's positions, in fp32 and in whatever dtype and device they were last asked for."""

    def __init__(self, config: ModelConfig) -> None:
        self._positions = config.positions
        self._dims = config.rotary_dims
        self._base = config.rotary_base
        self._interleaved = config.rotary_interleaved
        self._turning = config.heads + config.kv_heads
        self._scaling = config.rotary_scaling
        self._table_P2R: Tensor | None = None

    def turns(self, positions_N: Tensor, dtype: torch.dtype, attend: Attend) -> Turns:
        """The turns of these positions, each below the model's `positions`, in the sequences that `attend` knows."""
        half = self._dims // 2
        pair = (half, 2) if self._interleaved else (2, half)
        if self._scaling is not None and self._scaling.kind == "dynamic":
            rows_N2R = self._rows_of_lengths(positions_N, attend.reach(positions_N)).to(dtype)
        else:
            rows_N2R = self._table(dtype, positions_N).index_select(0, positions_N)
        cos, sin = rows_N2R.view(-1, 2, 1, *pair).unbind(1)
        return Turns(cos, sin, self._interleaved, self._turning)

    def _table(self, dtype: torch.dtype, positions_N: Tensor) -> Tensor:
        device, rows = positions_N.device, self._rows_for(positions_N)
        table = self._table_P2R
        if table is None or len(table) < rows or table.dtype != dtype or table.device != device:
            table = self._table_P2R = self._made(rows, device).to(dtype)
        return table

    def _rows_for(self, positions_N: Tensor) -> int:
        """All positions; where they are many, a power of 2 that will do, on a CPU, where looking costs nothing."""
        if self._positions <= FIRST_ROWS or positions_N.device.type != "cpu" or not len(positions_N):
            return self._positions
        return min(max(FIRST_ROWS, 1 << int(positions_N.max()).bit_length()), self._positions)

    def _made(self, rows: int, device: torch.device) -> Tensor:
        # The angles are made as transformers makes them, in fp32 on the CPU, so that tables agree to the bit.
        frequency_R2 = frequencies(self._dims, self._base, self._scaling)
        angle_PR2 = torch.arange(rows, dtype=torch.float32)[:, None] * frequency_R2
        return self._cos_and_sin(angle_PR2).to(device)

    def _rows_of_lengths(self, positions_N: Tensor, lengths_N: Tensor) -> Tensor:
        assert self._scaling is not None
        lengths_M, which_N = torch.unique(lengths_N, return_inverse=True)
        frequency_MR2 = dynamic_frequencies(self._dims, self._base, self._scaling, lengths_M)
        return self._cos_and_sin(positions_N[:, None].float() * frequency_MR2[which_N])

    def _cos_and_sin(self, angle_PR2: Tensor) -> Tensor:
        """Cosines and signed sines of both numbers of each pair, [P, 2, R]."""
        factor = self._scaling.attention_factor if self._scaling else 1.0
        cos, sin = angle_PR2.cos() * factor, angle_PR2.sin() * factor
        axis = -1 if self._interleaved else 1
        cos_PR = torch.stack([cos, cos], axis).flatten(1)
        sin_PR = torch.stack([-sin, sin], axis).flatten(1)
        return torch.stack([cos_PR, sin_PR], 1)


def _turn_in_place(qkv_NGK: Tensor, cos: Tensor, sin: Tensor, interleaved: bool, heads: int, sign: int) -> Tensor:
    pair = cos.shape[-2:]
    turning = qkv_NGK[:, :heads, : pair[0] * pair[1]].view(len(qkv_NGK), heads, *pair)
    flipped = turning.flip(-1 if interleaved else -2)
    turning.mul_(cos).addcmul_(flipped, sin, value=sign)
    return qkv_NGK


class _Turn(torch.autograd.Function):
    """The turn with its gradient, which is the turn back: nothing but the tables is kept for it."""

    @staticmethod
    def forward(ctx: Any, qkv_NGK: Tensor, cos: Tensor, sin: Tensor, interleaved: bool, heads: int) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.interleaved, ctx.heads = interleaved, heads
        return _turn_in_place(qkv_NGK.clone(), cos, sin, interleaved, heads, sign=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        cos, sin = ctx.saved_tensors
        turned = _turn_in_place(gradients[0].clone(), cos, sin, ctx.interleaved, ctx.heads, sign=-1)
        return turned, None, None, None, None
