"""An fp32 number in two halves: a weight in 16 bits, which passes use, and 16 more bits that make it exact."""

import torch
from torch import Tensor

HALVES = (torch.bfloat16, torch.float16)
"""What the first half may be."""

_HALF = 0x8000
_BIAS = 127
"""Of fp32's exponent."""
UNIT = 40
"""An fp16 number whose exponent field is e has its last place at 2^(e - 25); its rest is counted in 2^(e - 40)."""


def split(exact: Tensor, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor]:
    """The numbers of `dtype` nearest to fp32 ones, and the int16 rest that `join` needs.

    bf16 (ties away from zero): the bits of an fp32 number are a sign and a magnitude, so adding half of bf16's last
    place to them rounds the magnitude, and what is left is -32768 to 32767 of fp32's last places. Every number comes
    back exactly from `join`; the few beyond bf16's largest (3.39e38) have an infinite first half, as they have when
    torch rounds them.

    fp16 (ties to even): what is left is at most half of the number's last place, and counted in 2^-15 of that place,
    -16384 to 16384. fp32's own last place is no finer down to 2^-16 (1.5e-5): every number from there to fp16's largest
    (65,504) comes back exactly. Smaller ones come back to within 2^-40 (9e-13), for fp16 has equal steps below 2^-14.
    """
    high, low = (torch.empty(exact.shape, dtype=half, device=exact.device) for half in (dtype, torch.int16))
    split_into(exact, high, low)
    return high, low


def split_into(exact: Tensor, high: Tensor, low: Tensor) -> None:
    """Write the halves that `split` gives into tensors that are there."""
    if high.dtype == torch.float16:
        high.copy_(exact)
        low.copy_((exact - high.float()).mul_(_power_of_two(UNIT - _exponent(high))).round_())
        return
    bits = exact.view(torch.int32)
    low.copy_(bits)  # keeps the lower 16 bits
    high.view(torch.int16).copy_((bits + _HALF).bitwise_right_shift_(16))


def join(high: Tensor, low: Tensor) -> Tensor:
    """The fp32 numbers that `split` took apart."""
    if high.dtype == torch.float16:
        return high.float().addcmul_(low.float(), _power_of_two(_exponent(high) - UNIT))
    return high.float().view(torch.int32).add_(low).view(torch.float32)


def _exponent(high: Tensor) -> Tensor:
    """fp16's exponent field, int32; numbers below 2^-14 have the steps of the least one."""
    return high.view(torch.int16).to(torch.int32).bitwise_right_shift_(10).bitwise_and_(0x1F).clamp_(min=1)


def _power_of_two(exponent: Tensor) -> Tensor:
    """fp32 powers of two of int32 exponents."""
    return (exponent + _BIAS).bitwise_left_shift_(23).view(torch.float32)
