"""A matrix times many tokens' vectors, by torch: in fp8 as it is where the GPU can, else as plain numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
from torch import Tensor
from torch.nn import functional as F

from roslin.engine.gpu import packed, row_kernels
from roslin.engine.gpu.matrix import CODES
from roslin.model.fp8 import FP8, has_fp8_cores

if TYPE_CHECKING:
    from collections.abc import Callable

    from roslin.engine.gpu.matrix import Matrix

    Times = Callable[[Tensor, slice, Tensor | None], Tensor]

ROW_BLOCK = 1024
"""Numbers of a row that a program takes of what is done number by number."""
FP8_BLOCK = 4096
"""The same where a program takes the whole row, one after the other."""
ALIGNMENT = 16
"""Sizes of products in fp8, and the places where their matrices begin, are multiples of it."""


def many_product(matrix: Matrix, dtype: torch.dtype, split: int = 0) -> Times:
    """What multiplies vectors [N, I] with the rows of a matrix before or behind `split`, and adds a bias, [N, O].

    Where matrix and GPU are for it, in fp8: then each vector is rounded to fp8 too, by a scale of its own, so that what
    comes of it does not depend on what is multiplied beside it.
    """
    if in_fp8(matrix, dtype, split):
        return lambda x_NI, rows, bias_O: _fp8_product(x_NI, matrix, rows, bias_O)
    weight_OI = plain_numbers(matrix, dtype)
    return lambda x_NI, rows, bias_O: F.linear(x_NI, weight_OI[rows], bias_O)


def in_fp8(matrix: Matrix, dtype: torch.dtype, split: int = 0) -> bool:
    """Whether a matrix is multiplied in fp8; torch does that into bf16 alone."""
    sizes = [split, matrix.rows, *matrix.widths]
    aligned = not any(size % ALIGNMENT for size in sizes)
    return matrix.weight.dtype == FP8 and dtype == torch.bfloat16 and aligned and has_fp8_cores(matrix.weight.device)


def to_fp8(x_NI: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors in fp8, [N, I], and the scale of each, [N, 1]; their rows may lie apart."""
    codes_NI = torch.empty(x_NI.shape, dtype=FP8, device=x_NI.device)
    scales_N1 = torch.empty(len(x_NI), 1, device=x_NI.device)
    width = x_NI.shape[1]
    block = min(FP8_BLOCK, triton.next_power_of_2(width))
    row_kernels.to_fp8[(len(x_NI),)](x_NI, codes_NI, scales_N1, x_NI.stride(0), width, block, num_warps=8)
    return codes_NI, scales_N1


def _fp8_product(x_NI: Tensor, matrix: Matrix, rows: slice, bias_O: Tensor | None) -> Tensor:
    """Sources that lie beside each other have scales of their own, so they are products of their own."""
    assert matrix.scale is not None
    weight_OI, scale_PO = matrix.weight[rows], matrix.scale[:, rows]
    if not len(weight_OI):
        return x_NI.new_empty(len(x_NI), 0)
    out_NO: Tensor | None = None
    sources_PNW, weights_POW = (torch.split(whole, list(matrix.widths), 1) for whole in (x_NI, weight_OI))
    for x_NW, weight_OW, scale_O in zip(sources_PNW, weights_POW, scale_PO, strict=True):
        codes_NW, scales_N1 = to_fp8(x_NW)
        part_NO = torch._scaled_mm(
            codes_NW, weight_OW.T, scale_a=scales_N1, scale_b=scale_O[None],
            bias=bias_O if out_NO is None else None, out_dtype=x_NI.dtype, use_fast_accum=True,
        )  # fmt: skip
        out_NO = part_NO if out_NO is None else out_NO.add_(part_NO)
    assert out_NO is not None
    return out_NO


def plain_numbers(matrix: Matrix, dtype: torch.dtype) -> Tensor:
    """The matrix [O, I] in a dtype, multiplied out where it has scales."""
    if matrix.scale is None:
        return matrix.weight
    columns = sum(matrix.widths)
    out = torch.empty(matrix.rows, columns, dtype=dtype, device=matrix.weight.device)
    start = group = 0
    for part, width in enumerate(matrix.widths):
        grid, own = (matrix.rows, triton.cdiv(width, ROW_BLOCK)), out[:, start:]
        if matrix.group:
            words, pairs = matrix.weight[:, group * matrix.group // CODES :], matrix.scale[:, group:]
            packed.unpack[grid](
                words, pairs, own, words.stride(0), pairs.stride(0), columns, width, matrix.group, ROW_BLOCK
            )
            group += triton.cdiv(width, matrix.group)
        else:
            row_kernels.dequantise[grid](matrix.weight[:, start:], matrix.scale[part], own, columns, width, ROW_BLOCK)
        start += width
    return out
