"""A linear layer whose matrix is 4-bit: dequantised for each product, and frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roslin.model.nf4 import Nf4Weight, quantize_nf4

if TYPE_CHECKING:
    from typing import Self


class Nf4Linear(nn.Module):
    """x·Wᵀ + bias, in x's dtype, with W [O, I] in nf4.

    Codes and magnitudes are buffers, which move with the module and which no optimizer sees; gradients reach x and,
    where it asks for one, the bias.
    """

    codes: Tensor
    absmax_bits: Tensor

    def __init__(self, weight: Nf4Weight, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("codes", weight.codes)
        # As whole numbers: module.to(dtype) would round magnitudes along with the rest of a model.
        self.register_buffer("absmax_bits", weight.absmax.view(torch.int32))
        self.bias = bias
        self._block = weight.block
        self._dtype = weight.dtype

    @classmethod
    def from_linear(cls, linear: nn.Linear, block: int = 64) -> Self:
        """The layer with its matrix quantised; the bias is the same parameter."""
        return cls(quantize_nf4(linear.weight, block), linear.bias)

    @property
    def quantized(self) -> Nf4Weight:
        """The matrix as it is kept, sharing memory with the layer."""
        shape = (self.out_features, self.in_features)
        return Nf4Weight(self.codes, self.absmax_bits.view(torch.float32), shape, self._block, self._dtype)

    def dequantized(self, dtype: torch.dtype | None = None) -> Tensor:
        """The matrix [O, I] as `dtype` or the one that it had."""
        return self.quantized.dequantize(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] to [..., O]."""
        out: Tensor = _Product.apply(x, self.bias, self.quantized)  # type: ignore[no-untyped-call]
        return out


class _Product(torch.autograd.Function):
    """x·Wᵀ + bias. Autograd's own would keep W from the forward pass to the backward one; this makes it again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, weight: Nf4Weight) -> Tensor:
        ctx.weight = weight
        return F.linear(x, weight.dequantize(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        wants_x, wants_bias, _ = ctx.needs_input_grad
        grad_x = grad @ ctx.weight.dequantize(grad.dtype) if wants_x else None
        grad_bias = grad.reshape(-1, grad.shape[-1]).sum(0) if wants_bias else None
        return grad_x, grad_bias, None
