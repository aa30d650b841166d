"""Quantised matrices on a CPU without our own kernels: torch's, for those shapes that it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from roslin.model.quantised_linear import QuantisedLinear

if TYPE_CHECKING:
    from roslin.model import Decoder
    from roslin.model.quantised import QuantisedWeight

FEW = 32
"""Rows below which torch's packed products are faster than a product with the matrix unpacked."""
ROWS, COLUMNS = 16, 64
"""Torch's kernels take matrices whose sizes are multiples of these; it does not check, and reads beyond others."""
INT4_ZERO = 8
"""The code that torch takes for its zero point."""


class TorchPackedLinear(nn.Module):
    """A quantised linear layer by torch's packed kernels for few rows, and unpacked for many."""

    def __init__(self, linear: QuantisedLinear) -> None:
        super().__init__()
        self._linear = linear
        (rows, columns), form = linear.quantised.shape, linear.quantised.form
        assert form != "fp8"
        self._taken = rows % ROWS == 0 and columns % max(COLUMNS, linear.quantised.group or 0) == 0
        self._packed = _int4_packed(linear.quantised) if self._taken and form == "int4" else None

    def forward(self, x_NI: Tensor) -> Tensor:
        """[N, I] to [N, O]."""
        weight = self._linear.quantised
        if len(x_NI) >= FEW or not self._taken:
            unpacked_NO: Tensor = self._linear(x_NI)
            return unpacked_NO
        if self._packed is None:
            out_NO = torch._weight_int8pack_mm(x_NI.contiguous(), weight.codes, weight.scale.to(x_NI.dtype))
        else:
            codes, scales = self._packed
            assert weight.group is not None
            out_NO = torch._weight_int4pack_mm_for_cpu(x_NI.contiguous(), codes, weight.group, scales.to(x_NI.dtype))
        return out_NO if self._linear.bias is None else out_NO + self._linear.bias


def is_quantised(decoder: Decoder) -> bool:
    """Whether its matrices are in 8 or 4 bits."""
    return any(isinstance(module, QuantisedLinear) for module in decoder.modules())


def with_torch_kernels(decoder: Decoder) -> Decoder:
    """The decoder, with its quantised layers run by torch's kernels."""
    for name, module in list(decoder.named_modules()):
        if isinstance(module, QuantisedLinear):
            parent, _, attribute = name.rpartition(".")
            setattr(decoder.get_submodule(parent), attribute, TorchPackedLinear(module))
    return decoder


def _int4_packed(weight: QuantisedWeight) -> tuple[Tensor, Tensor]:
    """Torch's own packing, and its scales and zero points."""
    assert weight.shift is not None
    codes = torch.stack([weight.codes & 15, weight.codes >> 4], -1).flatten(1).int()
    scale = weight.scale.float()
    scales = torch.stack([scale, weight.shift.float() + INT4_ZERO * scale], -1).transpose(0, 1).contiguous()
    return torch._convert_weight_to_int4pack_for_cpu(codes, 1), scales
