"""What stands around the products of many tokens, as Triton kernels bound by memory."""

# mypy: ignore-errors

import triton
import triton.language as tl

from roslin.engine.gpu.rounding import as_kept
from roslin.engine.gpu.vector_kernels import activated

TINY = tl.constexpr(2.0**-100)
"""The least magnitude that a row is scaled by, so that one of zeros has a scale."""


@triton.jit
def norms(
    x, gains, shifts, one, other, epsilon,
    width: tl.constexpr, whole: tl.constexpr, norm: tl.constexpr, two: tl.constexpr,
):  # fmt: skip
    """One token's norm; if `two`, with two pairs of gain and shift."""
    start = tl.program_id(0).to(tl.int64) * width
    columns = tl.arange(0, whole)
    inside = columns < width
    row = tl.load(x + start + columns, mask=inside, other=0.0).to(tl.float32)
    if norm == "layer":
        row = tl.where(inside, row - tl.sum(row, 0) / width, 0.0)
    row *= 1.0 / tl.sqrt(tl.sum(row * row, 0) / width + epsilon)
    _affine(row, gains, shifts, one + start, columns, inside, norm)
    if two:
        _affine(row, gains + width, shifts + width, other + start, columns, inside, norm)


@triton.jit
def _affine(row, gain, shift, out, columns, inside, norm: tl.constexpr):
    row *= tl.load(gain + columns, mask=inside, other=0.0).to(tl.float32)
    if norm == "layer":
        row += tl.load(shift + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + columns, row.to(out.dtype.element_ty), mask=inside)


@triton.jit
def activate(
    up, bias, out, up_stride, out_stride, width, activation: tl.constexpr, gated: tl.constexpr, biased: tl.constexpr,
    block: tl.constexpr,
):  # fmt: skip
    """Some columns of one token: the activation of up + b; if `gated`, times what stands `width` columns on."""
    token = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * block + tl.arange(0, block)
    inside = columns < width
    up += token * up_stride + columns
    numbers = tl.load(up, mask=inside, other=0.0).to(tl.float32)
    if biased:
        numbers += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    numbers = activated(numbers, activation)
    if gated:
        beside = tl.load(up + width, mask=inside, other=0.0).to(tl.float32)
        if biased:
            beside += tl.load(bias + width + columns, mask=inside, other=0.0).to(tl.float32)
        numbers *= beside
    tl.store(out + token * out_stride + columns, numbers.to(out.dtype.element_ty), mask=inside)


@triton.jit
def dequantise(codes, scale, out, stride, width, block: tl.constexpr):
    """Some numbers of one row, of codes in int8 or fp8; rows are `stride` apart in both."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block + tl.arange(0, block)
    inside = column < width
    numbers = tl.load(codes + row * stride + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * stride + column, (numbers * tl.load(scale + row)).to(out.dtype.element_ty), mask=inside)


@triton.jit
def to_fp8(x, codes, scales, x_stride, width: tl.constexpr, block: tl.constexpr):
    """A row in fp8 (e4m3), its largest magnitude the greatest there is, and what brings it back.

    Where it has a NaN or an infinite number that is no number, and so is all that is multiplied with the row.
    """
    row = tl.program_id(0).to(tl.int64)
    most, poison = tl.zeros((block,), tl.float32), tl.zeros((block,), tl.float32)
    for start in range(0, width, block):
        column = start + tl.arange(0, block)
        numbers = tl.load(x + row * x_stride + column, mask=column < width, other=0.0).to(tl.float32)
        most = tl.maximum(most, tl.abs(numbers))
        poison += numbers * 0.0
    scale = tl.maximum(tl.max(most, 0), TINY) / 448.0
    tl.store(scales + row, scale + tl.sum(poison, 0))
    for start in range(0, width, block):
        column = start + tl.arange(0, block)
        numbers = tl.load(x + row * x_stride + column, mask=column < width, other=0.0).to(tl.float32)
        tl.store(codes + row * width + column, as_kept(numbers / scale, codes.dtype.element_ty), mask=column < width)
