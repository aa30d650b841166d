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
    high, low = (torch.empty(exact.shape, dtype=dtype, device=exact.device) for dtype in (torch.bfloat16, torch.int16))
    split_into(exact, high, low)
    return high, low


def split_into(exact: Tensor, high: Tensor, low: Tensor) -> None:
    """Write the halves that `split` gives into tensors that are there."""
    bits = exact.view(torch.int32)
    low.copy_(bits)  # keeps the lower 16 bits
    high.view(torch.int16).copy_((bits + _HALF).bitwise_right_shift_(16))


def join(high: Tensor, low: Tensor) -> Tensor:
    """The fp32 numbers that `split` took apart."""
    return high.float().view(torch.int32).add_(low).view(torch.float32)
