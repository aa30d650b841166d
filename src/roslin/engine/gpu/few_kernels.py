"""A matrix times a few tokens' vectors: read once for all of them, and multiplied by the matrix units.

Vectors are normed before. Their number is filled up to what the units take at the least.
"""

# mypy: ignore-errors

import triton
import triton.language as tl

from roslin.engine.gpu.packed import few_packed
from roslin.engine.gpu.vector_kernels import activated


@triton.jit
def _few(
    x, weight, pairs, offset_R, pair_offset_R, token_T, seen_T, x_stride,
    width: tl.constexpr, group: tl.constexpr, block_rows: tl.constexpr, block: tl.constexpr, few: tl.constexpr,
):  # fmt: skip
    """Some rows of W · x of every token, in fp32; where `group` is not 0, W is in 4 bits."""
    if group > 0:
        sum_RT = few_packed(
            x, weight, pairs, offset_R, pair_offset_R, token_T, seen_T, x_stride,
            width, group, block_rows, block // 8, few,
        )  # fmt: skip
    else:
        sum_RT = tl.zeros((block_rows, few), tl.float32)
        for start in range(0, width, block):
            column_C = start + tl.arange(0, block)
            inside_C = column_C < width
            place_RC = offset_R[:, None] + column_C[None, :]
            w_RC = tl.load(weight + place_RC, mask=inside_C[None, :], other=0.0, eviction_policy="evict_first")
            x_CT = tl.load(
                x + token_T[None, :] * x_stride + column_C[:, None], mask=inside_C[:, None] & seen_T[None, :], other=0.0
            )
            sum_RT = tl.dot(w_RC.to(x_CT.dtype), x_CT, sum_RT, input_precision="ieee")
    return sum_RT


@triton.jit
def few_product(
    x, weight, scale, bias, out, rows, tokens, x_stride, weight_stride, scale_stride, out_stride,
    width: tl.constexpr, activation: tl.constexpr, gated: tl.constexpr, scaled: tl.constexpr, biased: tl.constexpr,
    group: tl.constexpr, block_rows: tl.constexpr, block: tl.constexpr, few: tl.constexpr,
):  # fmt: skip
    """Some rows of W · x + b by the activation; if `gated`, those of the matrix's first half, times the second's."""
    row_R = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    held_R = tl.minimum(row_R, rows - 1)
    token_T = tl.arange(0, few)
    seen_T = token_T < tokens
    offset_R, pair_offset_R = held_R.to(tl.int64) * weight_stride, held_R.to(tl.int64) * scale_stride
    y_RT = _few(
        x, weight, scale, offset_R, pair_offset_R, token_T, seen_T, x_stride, width, group, block_rows, block, few
    )
    if scaled:
        y_RT *= tl.load(scale + held_R)[:, None]
    if biased:
        y_RT += tl.load(bias + held_R).to(tl.float32)[:, None]
    y_RT = activated(y_RT, activation)
    if gated:
        other_R = (rows + held_R).to(tl.int64)
        offset_R, pair_offset_R = other_R * weight_stride, other_R * scale_stride
        up_RT = _few(
            x, weight, scale, offset_R, pair_offset_R, token_T, seen_T, x_stride, width, group, block_rows, block, few
        )
        if scaled:
            up_RT *= tl.load(scale + rows + held_R)[:, None]
        if biased:
            up_RT += tl.load(bias + rows + held_R).to(tl.float32)[:, None]
        y_RT *= up_RT
    place_RT = token_T[None, :] * out_stride + row_R[:, None]
    tl.store(out + place_RT, y_RT.to(out.dtype.element_ty), mask=(row_R < rows)[:, None] & seen_T[None, :])


@triton.jit
def few_residual(
    z, weight, scale, bias, x, rows, tokens, z_stride, weight_stride, scale_stride,
    width: tl.constexpr, other_width: tl.constexpr, scaled: tl.constexpr, biased: tl.constexpr, group: tl.constexpr,
    block_rows: tl.constexpr, block: tl.constexpr, few: tl.constexpr,
):  # fmt: skip
    """Some rows of x += W · z + b; z and the columns are of two sources, each with scales of its own."""
    row_R = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    held_R = tl.minimum(row_R, rows - 1)
    token_T = tl.arange(0, few)
    seen_T = token_T < tokens
    offset_R, pair_offset_R = held_R.to(tl.int64) * weight_stride, held_R.to(tl.int64) * scale_stride
    y_RT = _few(
        z, weight, scale, offset_R, pair_offset_R, token_T, seen_T, z_stride, width, group, block_rows, block, few
    )
    if scaled:
        y_RT *= tl.load(scale + held_R)[:, None]
    if other_width > 0:
        if group > 0:
            own_pairs: tl.constexpr = (width + group - 1) // group
            own: tl.constexpr = own_pairs * (group // 8)
        else:
            own_pairs: tl.constexpr = 0
            own: tl.constexpr = width
        other_RT = _few(
            z + width, weight + own, scale + own_pairs, offset_R, pair_offset_R, token_T, seen_T, z_stride,
            other_width, group, block_rows, block, few,
        )  # fmt: skip
        if scaled:
            other_RT *= tl.load(scale + rows + held_R)[:, None]
        y_RT += other_RT
    if biased:
        y_RT += tl.load(bias + held_R).to(tl.float32)[:, None]
    place_RT = token_T[None, :] * rows + row_R[:, None]
    mask_RT = (row_R < rows)[:, None] & seen_T[None, :]
    y_RT += tl.load(x + place_RT, mask=mask_RT, other=0.0).to(tl.float32)
    tl.store(x + place_RT, y_RT.to(x.dtype.element_ty), mask=mask_RT)
