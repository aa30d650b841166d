"""Matrices as the GPU's kernels read them: plain, or in int8 or fp8 with a scale for each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from roslin.model.quantised import quantise_8
from roslin.model.quantised_linear import QuantisedLinear

if TYPE_CHECKING:
    from collections.abc import Sequence

FP8 = torch.float8_e4m3fn


@dataclass(frozen=True, eq=False)
class Matrix:
    """A matrix [O, I], contiguous. Rows of int8 or fp8 numbers have scales, in fp32.

    Its columns are those of one matrix, or of several beside each other, `widths` of each: `scale` is [parts, O].
    """

    weight: Tensor
    scale: Tensor | None
    widths: tuple[int, ...]

    @property
    def rows(self) -> int:
        """How many outputs."""
        return len(self.weight)


def matrix_of(linear: nn.Module) -> Matrix:
    """A linear layer's matrix; no copy."""
    if isinstance(linear, QuantisedLinear):
        quantised = linear.quantised
        return Matrix(quantised.codes, quantised.scale[None], (linear.in_features,))
    assert isinstance(linear, nn.Linear)
    return Matrix(linear.weight.detach(), None, (linear.in_features,))


def as_it_is(matrix: Matrix) -> Matrix:
    """Holds what the decoder had."""
    return matrix


def in_int8(matrix: Matrix) -> Matrix:
    """Rounds a plain matrix to int8, a scale for each row."""
    made = quantise_8(matrix.weight)
    return Matrix(made.codes, made.scale[None], matrix.widths)


def in_fp8(matrix: Matrix) -> Matrix:
    """Rounds a plain matrix to fp8 (e4m3), a scale for each row that takes its largest number to the greatest."""
    weight = matrix.weight.float()
    scale = weight.abs().amax(1) / torch.finfo(FP8).max
    scaled = weight / scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    return Matrix(scaled.to(FP8), scale[None], matrix.widths)


def stacked(parts: Sequence[Matrix]) -> Matrix:
    """One matrix above the other: sums of the same input."""
    if len(parts) == 1:
        return parts[0]
    scales = [part.scale for part in parts if part.scale is not None]
    weight = torch.cat([part.weight for part in parts])
    return Matrix(weight, torch.cat(scales, 1) if scales else None, parts[0].widths)


def beside(parts: Sequence[Matrix]) -> Matrix:
    """One matrix beside the other: the sum of both products."""
    if len(parts) == 1:
        return parts[0]
    scales = [part.scale for part in parts if part.scale is not None]
    weight = torch.cat([part.weight for part in parts], 1)
    widths = tuple(width for part in parts for width in part.widths)
    return Matrix(weight, torch.cat(scales) if scales else None, widths)
