"""Random bits for stochastic rounding, made of counters: the same run draws the same bits, whenever it is resumed."""

import zlib

import numpy as np
import torch
from torch import Tensor

MULTIPLIERS = (-2048144789, -1028477387)
"""Of MurmurHash3's finalizer (0x85EBCA6B and 0xC2B2AE35, as int32), which makes each input bit flip half of them."""


def key_of(seed: int, name: str, step: int) -> int:
    """An int32 for one tensor's update, which `bits_of` mixes with the numbers of its elements."""
    words = np.random.SeedSequence([seed, zlib.crc32(name.encode()), step]).generate_state(1, np.uint32)
    return int(words.view(np.int32)[0])


def bits_of(key: int, first: int, count: int, device: torch.device) -> Tensor:
    """32 random bits (int32) for each of `count` elements of a tensor, from element `first` on."""
    bits = torch.arange(count, dtype=torch.int32, device=device)
    bits.add_((first + 2**31) % 2**32 - 2**31).bitwise_xor_(key)
    for multiplier, shift in zip(MULTIPLIERS, (16, 13), strict=True):
        bits.bitwise_xor_(_shifted(bits, shift)).mul_(multiplier)
    return bits.bitwise_xor_(_shifted(bits, 16))


def halves(bits: Tensor) -> tuple[Tensor, Tensor]:
    """The lower and the upper 16 of 32 bits, each 0 to 65535 (int32): one for each moment."""
    return bits & 0xFFFF, _shifted(bits, 16)


def _shifted(bits: Tensor, by: int) -> Tensor:
    """To the right, with zeros coming in: torch repeats the sign."""
    return (bits >> by).bitwise_and_((1 << (32 - by)) - 1)
