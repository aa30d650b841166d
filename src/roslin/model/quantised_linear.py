"""Modules of a decoder whose matrices are in 8 or 4 bits: dequantised for each use, and frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roslin.model.quantised import QuantisedWeight

if TYPE_CHECKING:
    from collections.abc import Callable

    from roslin.model.decoder import Decoder


class _Quantised(nn.Module):
    """Holds a matrix. Scales and shifts are kept as whole numbers: module.to(dtype) would round them."""

    codes: Tensor
    scale_bits: Tensor
    shift_bits: Tensor | None

    def __init__(self, weight: QuantisedWeight) -> None:
        super().__init__()
        self._shape, self._group = weight.shape, weight.group
        self.register_buffer("codes", weight.codes)
        self.register_buffer("scale_bits", _bits(weight.scale))
        self.register_buffer("shift_bits", None if weight.shift is None else _bits(weight.shift))

    @property
    def quantised(self) -> QuantisedWeight:
        """The matrix as it is kept, sharing memory with the module."""
        if self.shift_bits is None:
            return QuantisedWeight(self.codes, self.scale_bits.view(torch.float32), self._shape)
        scale, shift = self.scale_bits.view(torch.float16), self.shift_bits.view(torch.float16)
        return QuantisedWeight(self.codes, scale, self._shape, shift, self._group)


class QuantisedLinear(_Quantised):
    """x·Wᵀ + bias, in x's dtype, with W [O, I] in 8 or 4 bits."""

    def __init__(self, weight: QuantisedWeight, bias: nn.Parameter | None = None) -> None:
        super().__init__(weight)
        self.out_features, self.in_features = weight.shape
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] to [..., O]."""
        return F.linear(x, self.quantised.dequantize(x.dtype), self.bias)


class QuantisedEmbedding(_Quantised):
    """Rows [V, D] in 8 or 4 bits, of which those asked for become numbers of a dtype."""

    def __init__(self, weight: QuantisedWeight, dtype: Callable[[], torch.dtype]) -> None:
        """`dtype` says which, when it is asked for: that of the decoder, which may change."""
        super().__init__(weight)
        self.num_embeddings, self.embedding_dim = weight.shape
        self._dtype = dtype

    def forward(self, ids_N: Tensor) -> Tensor:
        """[N] to [N, D]."""
        return self.quantised.rows(ids_N).dequantize(self._dtype())


def unpack_fp8(decoder: Decoder) -> bool:
    """Put plain layers of the decoder's dtype in the place of those in fp8; whether there were any."""
    names = [name for name, module in decoder.named_modules() if _is_fp8(module)]
    for name in names:  # of which one at a time is there twice
        parent, _, attribute = name.rpartition(".")
        module = decoder.get_submodule(name)
        assert isinstance(module, QuantisedLinear)
        plain = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
        plain.weight = nn.Parameter(module.quantised.dequantize(decoder.dtype), requires_grad=False)
        plain.register_parameter("bias", module.bias)
        setattr(decoder.get_submodule(parent), attribute, plain)
    return bool(names)


def _is_fp8(module: nn.Module) -> bool:
    return isinstance(module, QuantisedLinear) and module.quantised.form == "fp8"


def _bits(numbers: Tensor) -> Tensor:
    return numbers.view(torch.int32 if numbers.dtype == torch.float32 else torch.int16)
