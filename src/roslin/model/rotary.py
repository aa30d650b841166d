"""Rotary positions: tables made once, gathered once a forward pass, applied in three operations a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from roslin.model.config import ModelConfig


@dataclass(frozen=True)
class Turns:
    """The cosines and signed sines of one forward pass's positions, shaped to meet a pair of each dimension.

    A pair (a, b) turns to (a cos - b sin, b cos + a sin): the pair times cos, plus the flipped pair times (-sin, sin).
    Both tensors are [N, 1, 1, 2, R/2] for half-split pairs and [N, 1, 1, R/2, 2] for interleaved ones.
    """

    cos: Tensor
    sin: Tensor
    interleaved: bool

    def apply(self, qkv_N3HK: Tensor) -> Tensor:
        """Turn the queries and keys. Without gradients this happens in place."""
        if torch.is_grad_enabled() and qkv_N3HK.requires_grad:
            turned: Tensor = _Turn.apply(qkv_N3HK, self.cos, self.sin, self.interleaved)  # type: ignore[no-untyped-call]
            return turned
        return _turn_in_place(qkv_N3HK, self.cos, self.sin, self.interleaved, sign=1)


class Rotary:
    """The tables of a decoder's positions, in fp32 and in whatever dtype and device they were last asked for."""

    def __init__(self, config: ModelConfig) -> None:
        self._positions = config.positions
        self._dims = config.rotary_dims
        self._base = config.rotary_base
        self._interleaved = config.rotary_interleaved
        self._table_P2R: Tensor | None = None

    def turns(self, positions_N: Tensor, dtype: torch.dtype) -> Turns:
        """The turns of these positions, each below the model's `positions`."""
        half = self._dims // 2
        pair = (half, 2) if self._interleaved else (2, half)
        rows_N2R = self._table(dtype, positions_N.device).index_select(0, positions_N)
        cos, sin = rows_N2R.view(-1, 2, 1, 1, *pair).unbind(1)
        return Turns(cos, sin, self._interleaved)

    def _table(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        if self._table_P2R is None or self._table_P2R.dtype != dtype or self._table_P2R.device != device:
            self._table_P2R = self._made(device).to(dtype)
        return self._table_P2R

    def _made(self, device: torch.device) -> Tensor:
        # The angles are made as transformers makes them, in fp32 on the CPU, so that tables agree to the bit.
        frequency_R2 = 1.0 / (self._base ** (torch.arange(0, self._dims, 2, dtype=torch.float32) / self._dims))
        angle_PR2 = torch.arange(self._positions, dtype=torch.float32)[:, None] * frequency_R2
        cos, sin = angle_PR2.cos(), angle_PR2.sin()
        axis = -1 if self._interleaved else 1
        cos_PR = torch.stack([cos, cos], axis).flatten(1)
        sin_PR = torch.stack([-sin, sin], axis).flatten(1)
        return torch.stack([cos_PR, sin_PR], 1).to(device)


def _turn_in_place(qkv_N3HK: Tensor, cos: Tensor, sin: Tensor, interleaved: bool, sign: int) -> Tensor:
    count, _, heads, _ = qkv_N3HK.shape
    pair = cos.shape[-2:]
    turning = qkv_N3HK[:, :2, :, : pair[0] * pair[1]].view(count, 2, heads, *pair)
    flipped = turning.flip(-1 if interleaved else -2)
    turning.mul_(cos).addcmul_(flipped, sin, value=sign)
    return qkv_N3HK


class _Turn(torch.autograd.Function):
    """The turn with its gradient, which is the turn back: nothing but the tables is kept for it."""

    @staticmethod
    def forward(ctx: Any, qkv_N3HK: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.interleaved = interleaved
        return _turn_in_place(qkv_N3HK.clone(), cos, sin, interleaved, sign=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn_in_place(gradients[0].clone(), cos, sin, ctx.interleaved, sign=-1), None, None, None
