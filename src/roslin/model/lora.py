"""LoRA: a frozen linear layer, and beside it a product of two narrow matrices that is trained (arXiv 2106.09685)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roslin.model.grad_mode import no_grad

if TYPE_CHECKING:
    from collections.abc import Sequence

    from roslin.model.nf4_linear import Nf4Linear


@dataclass(frozen=True)
class Part:
    """Some rows of a linear layer, `start` to `stop`, that are a module of their own in files, by the name `module`.

    `scaling` multiplies what this part's B·A, of rank `rank`, adds to these rows.
    """

    module: str
    start: int
    stop: int
    rank: int
    scaling: float


class LoraLinear(nn.Module):
    """x·Wᵀ + bias, W being frozen, and for the rows of each part scaling·(x·Aᵀ)·Bᵀ.

    `A_RI` holds the parts' A under each other, R being the sum of their ranks, so that they take one product; `B` holds
    a matrix [rows, rank] for each part. Both are fp32 whatever the base is made of, and are rounded to x's dtype for
    their products. (PEFT takes these products in fp32, and rounds the layer's sum: the same where x is fp32.) Dropout
    is on what A reads, one draw for all parts, and only while the layer is in training mode.
    """

    def __init__(self, base: nn.Linear | Nf4Linear, parts: Sequence[Part], dropout: float = 0.0) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.parts = sorted(parts, key=lambda part: part.start)
        self.dropout = nn.Dropout(dropout)
        self._ranks = [part.rank for part in self.parts]
        device = base.weight.device if isinstance(base, nn.Linear) else base.codes.device
        self.A_RI = nn.Parameter(torch.zeros(sum(self._ranks), base.in_features, device=device))
        self.B = nn.ParameterList(torch.zeros(p.stop - p.start, p.rank, device=device) for p in self.parts)

    @no_grad
    def start_from(self, source: torch.Generator) -> None:
        """Draw A as torch and PEFT do for a linear layer; B stays zero, so that nothing is added yet.

        `source` draws on the CPU: the same numbers whatever the device.
        """
        drawn_RI = torch.empty(self.A_RI.shape)
        self.A_RI.copy_(nn.init.kaiming_uniform_(drawn_RI, a=math.sqrt(5), generator=source))

    def forward(self, x_NI: Tensor) -> Tensor:
        """[N, I] to [N, O]."""
        inner_NR = F.linear(self.dropout(x_NI), self.A_RI.to(x_NI.dtype))
        added_NO = self._added(inner_NR)
        out_NO: Tensor = self.base(x_NI) + added_NO
        return out_NO

    def _added(self, inner_NR: Tensor) -> Tensor:
        pieces, end = [], 0
        for part, B_OR, h_NR in zip(self.parts, self.B, inner_NR.split_with_sizes(self._ranks, -1), strict=True):
            pieces += [_no_rows(h_NR, part.start - end), F.linear(h_NR * part.scaling, B_OR.to(h_NR.dtype))]
            end = part.stop
        pieces.append(_no_rows(inner_NR, self.base.out_features - end))
        return torch.cat([piece for piece in pieces if piece.shape[-1]], -1)

    def pieces(self) -> list[tuple[Part, Tensor, Tensor]]:
        """Each part with its A [rank, I] and its B [rows, rank]."""
        return list(zip(self.parts, self.A_RI.split_with_sizes(self._ranks), self.B, strict=True))

    @no_grad
    def merged(self, dtype: torch.dtype) -> nn.Linear:
        """A plain layer that does the same without dropout: its matrix is summed in fp32 and rounded once."""
        weight_OI = dense_weight(self.base)
        for part, A_RI, B_OR in self.pieces():
            weight_OI[part.start : part.stop].addmm_(B_OR, A_RI, alpha=part.scaling)
        return as_linear(weight_OI.to(dtype), self.base.bias)


def _no_rows(like: Tensor, rows: int) -> Tensor:
    return like.new_zeros(*like.shape[:-1], rows)


def dense_weight(layer: nn.Linear | Nf4Linear) -> Tensor:
    """A copy of a layer's matrix [O, I] in fp32."""
    if isinstance(layer, nn.Linear):
        return layer.weight.detach().to(torch.float32, copy=True)
    return layer.dequantized(torch.float32)


def as_linear(weight_OI: Tensor, bias: Tensor | None) -> nn.Linear:
    """A plain layer around a matrix and a bias, which are frozen."""
    rows, columns = weight_OI.shape
    layer = nn.Linear(columns, rows, bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight_OI, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.to(weight_OI.dtype), requires_grad=False)
    return layer
