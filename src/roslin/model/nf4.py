"""Weights in 4-bit NormalFloat (nf4), the format of QLoRA's frozen base, in plain torch.

The numbers of a matrix, row after row, are cut into blocks of 64. A block keeps its largest magnitude in fp32, and for
each number the nearest of sixteen levels of that magnitude: 4.5 bits a weight in all. Codes and magnitudes are those
of bitsandbytes on a CPU, bit for bit, so that its files go in and out without being quantised anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from roslin.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
"""Quantiles of a normal distribution, scaled to [-1, 1], with an exact zero: QLoRA (arXiv:2305.14314), appendix E."""

BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
"""The sizes of a block that bitsandbytes takes."""

ZERO = LEVELS.index(0.0)
SMALLEST = 1e-38
"""What bitsandbytes divides by where a block's largest magnitude is smaller."""


@dataclass(frozen=True, eq=False)
class Nf4Weight:
    """A matrix [O, I] in nf4.

    `codes` [ceil(O·I / 2)] uint8 hold two numbers each, the first in the high half; `absmax` [ceil(O·I / block)] fp32
    are the blocks' largest magnitudes, the last of a shorter block where the numbers do not divide. `dtype` is what
    the matrix had before.
    """

    codes: Tensor
    absmax: Tensor
    shape: tuple[int, int]
    block: int
    dtype: torch.dtype

    @property
    def has_whole_rows(self) -> bool:
        """Whether no block spans two rows, so that rows can be taken, stacked and moved as they are."""
        return self.shape[1] % self.block == 0

    def dequantize(self, dtype: torch.dtype | None = None) -> Tensor:
        """The matrix [O, I], multiplied out in fp32 and rounded once, to `dtype` or the one that it had."""
        count = math.prod(self.shape)
        whole = count - count % self.block
        numbers = F.embedding(self.codes.int(), _level_pairs(self.codes.device)).view(-1)
        numbers[:whole].view(-1, self.block).mul_(self.absmax[: whole // self.block, None])
        numbers[whole:].mul_(self.absmax[whole // self.block :])
        return numbers[:count].view(self.shape).to(dtype or self.dtype)


def quantize_nf4(weight_OI: Tensor, block: int = 64) -> Nf4Weight:
    """The matrix in nf4, each number at the level nearest to it; of two as near, the lower.

    `block` is one of `BLOCKS`; InputError otherwise. A matrix in fp64 counts as one in fp32.
    """
    if block not in BLOCKS:
        raise InputError(f"A block of {block} numbers is none that 4-bit weights have: {', '.join(map(str, BLOCKS))}.")
    rows, columns = weight_OI.shape
    scaled, absmax = _scaled(weight_OI.detach().flatten().float(), block)
    levels = torch.tensor(LEVELS, device=scaled.device)
    nearest = torch.bucketize(scaled, (levels[:-1] + levels[1:]) / 2, out_int32=True).to(torch.uint8)
    pairs = F.pad(nearest, (0, len(nearest) % 2), value=ZERO).view(-1, 2)
    dtype = torch.float32 if weight_OI.dtype == torch.float64 else weight_OI.dtype
    return Nf4Weight(pairs[:, 0] << 4 | pairs[:, 1], absmax, (rows, columns), block, dtype)


def select_rows(weight: Nf4Weight, rows: Tensor | slice) -> Nf4Weight:
    """Some rows in the order given, by index or slice. Raises InputError where blocks span rows."""
    _check_whole_rows(weight)
    codes = weight.codes.view(weight.shape[0], -1)[rows]
    absmax = weight.absmax.view(weight.shape[0], -1)[rows]
    return replace(weight, codes=codes.flatten(), absmax=absmax.flatten(), shape=(len(codes), weight.shape[1]))


def cat_rows(parts: Sequence[Nf4Weight]) -> Nf4Weight:
    """Matrices stacked by rows. Raises InputError where blocks span rows, or widths, blocks or dtypes differ."""
    first = parts[0]
    for part in parts:
        _check_whole_rows(part)
        if (part.shape[1], part.block, part.dtype) != (first.shape[1], first.block, first.dtype):
            raise InputError(f"4-bit weights of different make cannot be stacked: {_make(first)}, and {_make(part)}.")
    rows = sum(part.shape[0] for part in parts)
    codes, absmax = (torch.cat(pieces) for pieces in zip(*((p.codes, p.absmax) for p in parts), strict=True))
    return replace(first, codes=codes, absmax=absmax, shape=(rows, first.shape[1]))


@cache
def _level_pairs(device: torch.device) -> Tensor:
    """The two numbers that each byte of codes stands for, [256, 2] fp32: one look-up for both."""
    levels = torch.tensor(LEVELS, device=device)
    return torch.cartesian_prod(levels, levels)


def _scaled(numbers: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Numbers as shares of their block's largest magnitude, and those magnitudes."""
    whole = len(numbers) - len(numbers) % block
    blocks, rest = numbers[:whole].view(-1, block), numbers[whole:]
    absmax = blocks.abs().amax(1)
    scaled = (blocks * (1.0 / absmax.clamp(min=SMALLEST))[:, None]).view(-1)
    if not len(rest):
        return scaled, absmax
    # bitsandbytes divides in a shorter last block, where it takes the reciprocal above; last bits depend on it.
    largest = rest.abs().amax(0, keepdim=True).clamp(min=SMALLEST)
    return torch.cat([scaled, rest / largest]), torch.cat([absmax, largest])


def _check_whole_rows(weight: Nf4Weight) -> None:
    if not weight.has_whole_rows:
        raise InputError(
            f"4-bit weights of shape {list(weight.shape)} cannot be taken apart or stacked by rows: their blocks of "
            f"{weight.block} numbers run over the rows' ends. Use the model's unquantised weights."
        )


def _make(weight: Nf4Weight) -> str:
    dtype = str(weight.dtype).removeprefix("torch.")
    return f"{weight.shape[1]} columns in blocks of {weight.block}, once {dtype}"
