"""Floating point of 8 bits, as GPUs multiply it: e4m3, three bits of mantissa, from 2^-9 to 448."""

import torch

FP8 = torch.float8_e4m3fn
CAPABILITY = (8, 9)
"""The first compute capability with fp8 tensor cores."""


def has_fp8_cores(device: torch.device) -> bool:
    """Whether a device multiplies in fp8."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= CAPABILITY
