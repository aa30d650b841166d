"""An fp32 number in two halves: a bf16 weight, which passes use, and 16 more bits that make it exact."""

import torch
from torch import Tensor

_HALF = 0x8000


def split(exact: Tensor) -> tuple[Tensor, Tensor]:
    """The bf16 numbers nearest to fp32 ones (ties away from zero), and the int16 rest that `join` needs.

    The bits of an fp32 number are a sign and a magnitude, so adding half of bf16's last place to them rounds the
    magnitude, and what is left is -32768 to 32767 of fp32's last places. Every number comes back exactly from `join`;
    the few beyond bf16's largest (3.39e38) have an infinite high half, as they have when torch rounds them.
    """
    bits = exact.view(torch.int32)
    high = ((bits + _HALF) >> 16).to(torch.int16)
    return high.view(torch.bfloat16), bits.to(torch.int16)


def join(high: Tensor, low: Tensor) -> Tensor:
    """The fp32 numbers that `split` took apart."""
    bits = high.view(torch.int16).to(torch.int32) << 16
    return bits.add_(low).view(torch.float32)
