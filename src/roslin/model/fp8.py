"""Floating point of 8 bits, as GPUs multiply it: e4m3, three bits of mantissa, from 2^-9 to 448."""

from collections.abc import Sequence

import torch
from torch import Tensor

FP8 = torch.float8_e4m3fn
CAPABILITY = (8, 9)
"""The first compute capability with fp8 tensor cores."""


def has_fp8_cores(device: torch.device) -> bool:
    """Whether a device multiplies in fp8."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= CAPABILITY


def joined(pieces: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one dtype in a dense one. Numbers of 8 bits go as bytes: not on every device can torch join fp8."""
    dtype = pieces[0].dtype
    plain = [each.view(torch.uint8) if dtype.itemsize == 1 else each for each in pieces]
    return (torch.cat(plain, dim) if len(plain) > 1 else plain[0].contiguous()).view(dtype)
