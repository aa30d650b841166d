# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc"
"""Triton kernels that bring bf16 matrices to fp8: the largest magnitude, and quantising with a transposed copy.

Both stream: the first reads 2 bytes a number, the second reads 2 and writes 1 for each copy asked for. Nothing waits
for the host: the magnitude stays on the device, where the second kernel makes the scale of it.

roslin.tune.passes.fp8 holds the same functions in plain torch. This module needs triton; import it late.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from roslin.tune.passes.fp8_scaling import TINY, padded

PROGRAMS = 1024
"""Programs of the kernel that looks for the largest magnitude: one atomic each; all are resident on 132 processors."""

AMAX_BLOCK = 2048
AMAX_WARPS = 8

TILE = (64, 128)
"""Tokens and columns that one program quantises."""

TILE_WARPS = 8


@triton.jit
def note_amax(values, amax_ptr):
    """Raise the fp32 number at `amax_ptr` (0 or more) to the largest magnitude of fp32 `values`, atomically.

    Magnitudes order as their bits do, and so do infinity and NaN, which are thus not lost.
    """
    bits = tl.abs(values).to(tl.int32, bitcast=True)
    tl.atomic_max(amax_ptr.to(tl.pointer_type(tl.int32)), tl.max(bits), sem="relaxed")


@triton.jit(do_not_specialize=["count"])
def _amax(x_ptr, amax_ptr, count, width, stride, block: tl.constexpr):
    columns = tl.arange(0, block)
    largest = tl.zeros([block], tl.int32)
    for row in range(tl.program_id(0), count, tl.num_programs(0)):
        for start in range(0, width, block):
            d = start + columns
            x = tl.load(x_ptr + tl.cast(row, tl.int64) * stride + d, mask=d < width, other=0.0).to(tl.float32)
            largest = tl.maximum(largest, tl.abs(x).to(tl.int32, bitcast=True))
    note_amax(largest.to(tl.float32, bitcast=True), amax_ptr)


@triton.jit(do_not_specialize=["count"])
def _quantise(
    x_ptr,
    amax_ptr,
    rows_ptr,
    transposed_ptr,
    descale_ptr,
    count,
    padded_count,
    width,
    stride,
    top: tl.constexpr,
    least: tl.constexpr,
    rows: tl.constexpr,
    transposed: tl.constexpr,
    tile_n: tl.constexpr,
    tile_d: tl.constexpr,
):
    n = tl.program_id(1) * tile_n + tl.arange(0, tile_n)
    d = tl.program_id(0) * tile_d + tl.arange(0, tile_d)
    n_long, d_long = n.to(tl.int64), d.to(tl.int64)
    amax = tl.maximum(tl.load(amax_ptr), least, propagate_nan=tl.PropagateNan.ALL)
    if (tl.program_id(0) == 0) & (tl.program_id(1) == 0):
        tl.store(descale_ptr, tl.div_rn(amax, top))
    inside = (n < count)[:, None] & (d < width)[None, :]
    x = tl.load(x_ptr + n_long[:, None] * stride + d[None, :], mask=inside, other=0.0).to(tl.float32)
    scaled = tl.clamp(x * tl.div_rn(top, amax), -top, top, propagate_nan=tl.PropagateNan.ALL)
    if rows:
        tl.store(rows_ptr + n_long[:, None] * width + d[None, :], scaled.to(rows_ptr.dtype.element_ty), mask=inside)
    if transposed:
        narrow = tl.trans(scaled.to(transposed_ptr.dtype.element_ty))
        within = (d < width)[:, None] & (n < padded_count)[None, :]
        tl.store(transposed_ptr + d_long[:, None] * padded_count + n[None, :], narrow, mask=within)


def amax(x_ND: Tensor) -> Tensor:
    """The largest magnitude of a bf16 matrix whose rows are contiguous: fp32, no dimensions, on its device."""
    largest = torch.zeros((), dtype=torch.float32, device=x_ND.device)
    count, width = x_ND.shape
    _amax[(min(count, PROGRAMS),)](x_ND, largest, count, width, x_ND.stride(0), block=AMAX_BLOCK, num_warps=AMAX_WARPS)
    return largest


def quantise(
    x_ND: Tensor, largest: Tensor, dtype: torch.dtype, top: float, rows: bool, transposed: bool
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """The copies asked for, made in one read: [N, D] and [D, N padded]; and what a number of theirs stands for.

    See roslin.tune.passes.fp8_scaling.quantise, which this equals bit by bit. `dtype` may be fp32, which shows the
    numbers before they are rounded.
    """
    count, width = x_ND.shape
    descale = torch.empty((), dtype=torch.float32, device=x_ND.device)
    rows_ND = x_ND.new_empty((count, width), dtype=dtype) if rows else None
    columns_DN = x_ND.new_empty((width, padded(count)), dtype=dtype) if transposed else None
    _quantise[(triton.cdiv(width, TILE[1]), triton.cdiv(count, TILE[0]))](
        x_ND,
        largest,
        rows_ND if rows_ND is not None else columns_DN,
        columns_DN if columns_DN is not None else rows_ND,
        descale,
        count,
        padded(count),
        width,
        x_ND.stride(0),
        top=top,
        least=TINY,
        rows=rows,
        transposed=transposed,
        tile_n=TILE[0],
        tile_d=TILE[1],
        num_warps=TILE_WARPS,
    )
    return rows_ND, columns_DN, descale
