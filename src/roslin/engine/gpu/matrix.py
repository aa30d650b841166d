"""Matrices as the GPU's kernels read them: plain, in int8 or fp8 with a scale for each row, or in 4 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roslin.model.fp8 import joined
from roslin.model.quantised import quantise_8, quantise_fp8, round_to_4
from roslin.model.quantised_linear import QuantisedLinear

if TYPE_CHECKING:
    from collections.abc import Sequence

    from roslin.model.quantised import QuantisedWeight

CODES = 8
"""In 4 bits: of a word."""


@dataclass(frozen=True, eq=False)
class Matrix:
    """A matrix [O, I], contiguous. Rows of int8 or fp8 numbers have scales, in fp32.

    Its columns are those of one matrix, or of several beside each other, `widths` of each: `scale` is [parts, O].
    Where `group` is not 0, the matrix is in 4 bits. So many columns share a scale and a shift: two numbers in fp16, the
    scale in the low half of an int32 of `scale` [O, groups]. `weight` are int32 words [O, groups * group / 8] of eight
    codes each, as `roslin.engine.gpu.packed` has them; each part's last group is filled up.
    """

    weight: Tensor
    scale: Tensor | None
    widths: tuple[int, ...]
    group: int = 0

    @property
    def rows(self) -> int:
        """How many outputs."""
        return len(self.weight)

    @property
    def bits(self) -> int:
        """Of a number."""
        return 4 if self.group else 8 * self.weight.itemsize

    @property
    def bytes(self) -> int:
        """Of all that a product reads of it."""
        return self.weight.nbytes + (0 if self.scale is None else self.scale.nbytes)


def matrix_of(linear: nn.Module) -> Matrix:
    """A linear layer's matrix; no copy, unless it is in 4 bits."""
    if isinstance(linear, QuantisedLinear):
        quantised = linear.quantised
        if quantised.bits == 4:
            return _packed(quantised)
        return _scaled(quantised)
    assert isinstance(linear, nn.Linear)
    return Matrix(linear.weight.detach(), None, (linear.in_features,))


def as_it_is(matrix: Matrix) -> Matrix:
    """Holds what the decoder had."""
    return matrix


def in_int8(matrix: Matrix) -> Matrix:
    """Rounds a plain matrix to int8, a scale for each row."""
    return _scaled(quantise_8(matrix.weight))


def in_fp8(matrix: Matrix) -> Matrix:
    """Rounds a plain matrix to fp8 (e4m3), a scale for each row."""
    return _scaled(quantise_fp8(matrix.weight))


def in_int4(matrix: Matrix) -> Matrix:
    """Rounds a plain matrix to 4 bits, each group's sixteen numbers spread from its least to its greatest."""
    return _packed(round_to_4(matrix.weight))


def part_of(matrix: Matrix, which: slice) -> Matrix:
    """Some rows of a matrix of one part; no copy."""
    scale = matrix.scale
    if scale is not None:
        scale = scale[which] if matrix.group else scale[:, which]
    return Matrix(matrix.weight[which], scale, matrix.widths, matrix.group)


def stacked(parts: Sequence[Matrix]) -> Matrix:
    """One matrix above the other: sums of the same input."""
    if len(parts) == 1:
        return parts[0]
    scales = [part.scale for part in parts if part.scale is not None]
    weight, group = joined([part.weight for part in parts], 0), parts[0].group
    scale = torch.cat(scales, 0 if group else 1) if scales else None
    return Matrix(weight, scale, parts[0].widths, group)


def beside(parts: Sequence[Matrix]) -> Matrix:
    """One matrix beside the other: the sum of both products."""
    if len(parts) == 1:
        return parts[0]
    scales = [part.scale for part in parts if part.scale is not None]
    weight = joined([part.weight for part in parts], 1)
    widths = tuple(width for part in parts for width in part.widths)
    group = parts[0].group
    return Matrix(weight, torch.cat(scales, 1 if group else 0) if scales else None, widths, group)


def _scaled(quantised: QuantisedWeight) -> Matrix:
    """A matrix in 8 bits; no copy."""
    return Matrix(quantised.codes, quantised.scale[None], (quantised.shape[1],))


def _packed(quantised: QuantisedWeight) -> Matrix:
    """A matrix in 4 bits with its codes in the order of the kernels' words."""
    rows, columns = quantised.shape
    group, shift = quantised.group, quantised.shift
    assert group is not None and shift is not None
    codes_OI = torch.stack([quantised.codes & 15, quantised.codes >> 4], -1).flatten(1)[:, :columns]
    codes_OGKJ = F.pad(codes_OI, (0, -columns % group)).view(rows, -1, CODES, group // CODES)
    words_OGJ = codes_OGKJ[:, :, 0].int()
    for k in range(1, CODES):
        words_OGJ |= codes_OGKJ[:, :, k].int() << 4 * k
    low, high = (half.contiguous().view(torch.int16).int() for half in (quantised.scale, shift))
    return Matrix(words_OGJ.flatten(1), low & 0xFFFF | high << 16, (columns,), group)
