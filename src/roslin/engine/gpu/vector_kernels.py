"""A matrix times one token's vector, with what stands before and after it, as Triton kernels that read it once.

They are bound by the reading of the matrix alone, so each program asks for its next tile before it works on the one it
has, and for its first one before it looks at the vector. A kernel launched with `early` starts while the one before it
still runs (programmatic dependent launch): matrices never change, so their tiles can be on their way by then, but
everything else is read after `gdc_wait`.
"""

# mypy: ignore-errors

import triton
import triton.language as tl

from roslin.engine.gpu.normed import normed, statistics
from roslin.engine.gpu.packed import packed_sum, words_of

try:
    from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait
except ImportError:  # Triton before 3.4
    gdc_launch_dependents = gdc_wait = None

HAS_EARLY = gdc_wait is not None


@triton.jit
def activated(x, activation: tl.constexpr):
    """An activation of fp32 numbers."""
    if activation == "gelu":
        x = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    elif activation == "gelu_new":
        x = x * tl.sigmoid(1.5957691216057308 * x * (1.0 + 0.044715 * x * x))
    elif activation == "silu":
        x = x * tl.sigmoid(x)
    return x


@triton.jit
def _tile(weight, offset_R, start, width: tl.constexpr, block: tl.constexpr):
    """Columns `start` and on of the matrix's rows at `offset_R`; nothing beyond `width`."""
    column_C = start + tl.arange(0, block)
    place_RC = offset_R[:, None] + column_C[None, :]
    return tl.load(weight + place_RC, mask=(column_C < width)[None, :], other=0.0, eviction_policy="evict_first")


@triton.jit
def normed_product(  # noqa: PLR0912, PLR0915 - what is constant decides what is compiled
    x, gains, shifts, weight, scale, bias, plain, active, rows, split, epsilon,
    width: tl.constexpr, whole: tl.constexpr, norm: tl.constexpr, two: tl.constexpr, activation: tl.constexpr,
    gated: tl.constexpr, scaled: tl.constexpr, biased: tl.constexpr, group: tl.constexpr,
    block_rows: tl.constexpr, block: tl.constexpr, early: tl.constexpr,
):  # fmt: skip
    """Some rows of W · norm(x) + b: the first `split` ones go to `plain`, the rest by the activation to `active`.

    `gains` and `shifts` hold a second norm for the rest if `two`. If `gated` there are twice as many rows after `split`
    as `rows` says, first the gate's. Where `group` is not 0, the matrix is in 4 bits, `scale` its scales and shifts.
    """
    program = tl.program_id(0)
    before = tl.cdiv(split, block_rows)
    is_plain = program < before
    first = tl.where(is_plain, program * block_rows, split + (program - before) * block_rows)
    end = tl.where(is_plain, split, rows)
    row_R = first + tl.arange(0, block_rows)
    held_R = tl.minimum(row_R, end - 1)
    if early:
        gdc_launch_dependents()
    if group > 0:
        pairs_a_row: tl.constexpr = (width + group - 1) // group
        words_a_row: tl.constexpr = pairs_a_row * (group // 8)
        words: tl.constexpr = block // 8
        pair_offset_R = held_R.to(tl.int64) * pairs_a_row
        offset_R = held_R.to(tl.int64) * words_a_row
        tile_RC = words_of(weight, offset_R, 0, words_a_row, words)
    else:
        offset_R = held_R.to(tl.int64) * width
        tile_RC = _tile(weight, offset_R, 0, width, block)
    if gated and group == 0:
        beside = (rows - split).to(tl.int64) * width
        other_RC = _tile(weight + beside, offset_R, 0, width, block)
        other_sum_RC = tl.zeros((block_rows, block), tl.float32)
    if early:
        gdc_wait()
    mean, inverse = 0.0, 1.0
    if norm != "none":
        mean, inverse = statistics(x, epsilon, norm, width, whole)
    if two:
        chosen = tl.where(is_plain, 0, width)
        gains += chosen
        shifts += chosen
    if group > 0:
        y_R = packed_sum(
            tile_RC, weight, scale, offset_R, pair_offset_R, x, gains, shifts, mean, inverse,
            norm, width, group, block_rows, words, "",
        )  # fmt: skip
    else:
        sum_RC = tl.zeros((block_rows, block), tl.float32)
        for start in range(0, width, block):
            next_RC = _tile(weight, offset_R, start + block, width, block)
            column_C = start + tl.arange(0, block)
            normed_C = normed(x, gains, shifts, column_C, column_C < width, mean, inverse, norm, "")
            sum_RC += tile_RC.to(tl.float32) * normed_C[None, :]
            tile_RC = next_RC
            if gated:
                next_other_RC = _tile(weight + beside, offset_R, start + block, width, block)
                other_sum_RC += other_RC.to(tl.float32) * normed_C[None, :]
                other_RC = next_other_RC
        y_R = tl.sum(sum_RC, 1)
    if scaled:
        y_R *= tl.load(scale + held_R)
    if biased:
        y_R += tl.load(bias + held_R).to(tl.float32)
    if is_plain:
        tl.store(plain + row_R, y_R.to(plain.dtype.element_ty), mask=row_R < end)
    else:
        y_R = activated(y_R, activation)
        if gated:
            if group > 0:
                offset_R += (rows - split).to(tl.int64) * words_a_row
                pair_offset_R += (rows - split).to(tl.int64) * pairs_a_row
                up_R = packed_sum(
                    words_of(weight, offset_R, 0, words_a_row, words), weight, scale, offset_R, pair_offset_R,
                    x, gains, shifts, mean, inverse, norm, width, group, block_rows, words, "",
                )  # fmt: skip
            else:
                up_R = tl.sum(other_sum_RC, 1)
            if scaled:
                up_R *= tl.load(scale + rows - split + held_R)
            if biased:
                up_R += tl.load(bias + rows - split + held_R).to(tl.float32)
            y_R *= up_R
        tl.store(active + row_R - split, y_R.to(active.dtype.element_ty), mask=row_R < end)


@triton.jit
def _first(weight, offset_R, width: tl.constexpr, group: tl.constexpr, block: tl.constexpr):
    """The first tile of some rows, of numbers or of words."""
    if group > 0:
        tile_RC = words_of(weight, offset_R, 0, (width + group - 1) // group * (group // 8), block // 8)
    else:
        tile_RC = _tile(weight, offset_R, 0, width, block)
    return tile_RC


@triton.jit
def _product(
    tile_RC, z, weight, scale, offset_R, scale_offset_R, width: tl.constexpr, group: tl.constexpr,
    block_rows: tl.constexpr, block: tl.constexpr, kept: tl.constexpr,
):  # fmt: skip
    """Some rows of W · z, in fp32; `tile_RC` is their first tile, `kept` what cache z may come from."""
    if group > 0:
        y_R = packed_sum(
            tile_RC, weight, scale, offset_R, scale_offset_R, z, z, z, 0.0, 1.0,
            "none", width, group, block_rows, block // 8, kept,
        )  # fmt: skip
    else:
        sum_RC = tl.zeros((block_rows, block), tl.float32)
        for start in range(0, width, block):
            next_RC = _tile(weight, offset_R, start + block, width, block)
            column = start + tl.arange(0, block)
            z_C = tl.load(z + column, mask=column < width, other=0.0, cache_modifier=kept).to(tl.float32)
            sum_RC += tile_RC.to(tl.float32) * z_C[None, :]
            tile_RC = next_RC
        y_R = tl.sum(sum_RC, 1)
    return y_R


@triton.jit
def residual_product(
    z, weight, scale, bias, x, rows,
    width: tl.constexpr, other_width: tl.constexpr, scaled: tl.constexpr, biased: tl.constexpr, group: tl.constexpr,
    block_rows: tl.constexpr, block: tl.constexpr, early: tl.constexpr,
):  # fmt: skip
    """Some rows of x += W · z + b.

    z and the matrix's columns are `width` numbers of one source, then `other_width` ones of another, each with a row
    of scales of its own. If `early` is 2 the other source is whole already when this begins, whatever runs before it.
    Where `group` is not 0, the matrix is in 4 bits, and each of its rows has scales and shifts in `scale`.
    """
    row_R = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    held_R = tl.minimum(row_R, rows - 1)
    if group > 0:
        own_pairs: tl.constexpr = (width + group - 1) // group
        pairs_a_row: tl.constexpr = own_pairs + (other_width + group - 1) // group
        own: tl.constexpr = own_pairs * (group // 8)
        offset_R = held_R.to(tl.int64) * (pairs_a_row * (group // 8))
        scale_offset_R = held_R.to(tl.int64) * pairs_a_row
        other_scale = scale + own_pairs
    else:
        own: tl.constexpr = width
        offset_R = held_R.to(tl.int64) * (width + other_width)
        scale_offset_R = offset_R
        other_scale = scale
    if early:
        gdc_launch_dependents()
    y_R = tl.zeros((block_rows,), tl.float32)
    if other_width > 0:
        tile_RC = _first(weight + own, offset_R, other_width, group, block)
        if early == 1:
            gdc_wait()
        # This may begin before the first level of the cache has let go of an older z.
        kept: tl.constexpr = ".cg" if early == 2 else ""
        y_R = _product(
            tile_RC, z + width, weight + own, other_scale, offset_R, scale_offset_R, other_width, group,
            block_rows, block, kept,
        )  # fmt: skip
        if scaled:
            y_R *= tl.load(scale + rows + held_R)
    tile_RC = _first(weight, offset_R, width, group, block)
    if early == 2 or (early == 1 and other_width == 0):
        gdc_wait()
    one_R = _product(tile_RC, z, weight, scale, offset_R, scale_offset_R, width, group, block_rows, block, "")
    if scaled:
        one_R *= tl.load(scale + held_R)
    y_R += one_R
    if biased:
        y_R += tl.load(bias + held_R).to(tl.float32)
    y_R += tl.load(x + held_R).to(tl.float32)
    tl.store(x + row_R, y_R.to(x.dtype.element_ty), mask=row_R < rows)
