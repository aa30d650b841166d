"""A matrix times one token's vector, with what stands before and after it, as Triton kernels that read it once.

They are bound by the reading of the matrix alone, so each program asks for its next tile before it works on the one it
has, and for its first one before it looks at the vector. A kernel launched with `early` starts while the one before it
still runs (programmatic dependent launch): matrices never change, so their tiles can be on their way by then, but
everything else is read after `gdc_wait`.
"""

# mypy: ignore-errors

import triton
import triton.language as tl

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
def _statistics(x, epsilon, norm: tl.constexpr, width: tl.constexpr, whole: tl.constexpr):
    """The mean and the inverse deviation of a vector; a mean of 0 where the norm has none."""
    columns = tl.arange(0, whole)
    inside = columns < width
    numbers = tl.load(x + columns, mask=inside, other=0.0).to(tl.float32)
    mean = 0.0
    if norm == "layer":
        mean = tl.sum(numbers, 0) / width
        numbers = tl.where(inside, numbers - mean, 0.0)
    return mean, 1.0 / tl.sqrt(tl.sum(numbers * numbers, 0) / width + epsilon)


@triton.jit
def _tile(weight, offset_R, start, width: tl.constexpr, block: tl.constexpr):
    """Columns `start` and on of the matrix's rows at `offset_R`; nothing beyond `width`."""
    column_C = start + tl.arange(0, block)
    place_RC = offset_R[:, None] + column_C[None, :]
    return tl.load(weight + place_RC, mask=(column_C < width)[None, :], other=0.0, eviction_policy="evict_first")


@triton.jit
def _normed(x, gain, shift, start, mean, inverse, norm: tl.constexpr, width: tl.constexpr, block: tl.constexpr):
    """Numbers `start` and on of a vector after its norm, in fp32."""
    column = start + tl.arange(0, block)
    inside = column < width
    numbers = tl.load(x + column, mask=inside, other=0.0).to(tl.float32)
    if norm == "layer":
        by = tl.load(gain + column, mask=inside, other=0.0).to(tl.float32)
        numbers = (numbers - mean) * inverse * by + tl.load(shift + column, mask=inside, other=0.0).to(tl.float32)
    elif norm == "rms":
        numbers = numbers * inverse * tl.load(gain + column, mask=inside, other=0.0).to(tl.float32)
    return numbers


@triton.jit
def normed_product(  # noqa: PLR0912, PLR0915 - what is constant decides what is compiled
    x, gains, shifts, weight, scale, bias, plain, active, rows, split, epsilon,
    width: tl.constexpr, whole: tl.constexpr, norm: tl.constexpr, two: tl.constexpr, activation: tl.constexpr,
    gated: tl.constexpr, scaled: tl.constexpr, biased: tl.constexpr,
    block_rows: tl.constexpr, block: tl.constexpr, early: tl.constexpr,
):  # fmt: skip
    """Some rows of W · norm(x) + b: the first `split` ones go to `plain`, the rest by the activation to `active`.

    `gains` and `shifts` hold a second norm for the rest if `two`. If `gated` there are twice as many rows after `split`
    as `rows` says, first the gate's.
    """
    program = tl.program_id(0)
    before = tl.cdiv(split, block_rows)
    is_plain = program < before
    first = tl.where(is_plain, program * block_rows, split + (program - before) * block_rows)
    end = tl.where(is_plain, split, rows)
    row_R = first + tl.arange(0, block_rows)
    held_R = tl.minimum(row_R, end - 1)
    offset_R = held_R.to(tl.int64) * width
    if early:
        gdc_launch_dependents()
    tile_RC = _tile(weight, offset_R, 0, width, block)
    if gated:
        beside = (rows - split).to(tl.int64) * width
        other_RC = _tile(weight + beside, offset_R, 0, width, block)
        other_sum_RC = tl.zeros((block_rows, block), tl.float32)
    if early:
        gdc_wait()
    mean, inverse = 0.0, 1.0
    if norm != "none":
        mean, inverse = _statistics(x, epsilon, norm, width, whole)
    if two:
        chosen = tl.where(is_plain, 0, width)
        gains += chosen
        shifts += chosen
    sum_RC = tl.zeros((block_rows, block), tl.float32)
    for start in range(0, width, block):
        next_RC = _tile(weight, offset_R, start + block, width, block)
        normed_C = _normed(x, gains, shifts, start, mean, inverse, norm, width, block)
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
            up_R = tl.sum(other_sum_RC, 1)
            if scaled:
                up_R *= tl.load(scale + rows - split + held_R)
            if biased:
                up_R += tl.load(bias + rows - split + held_R).to(tl.float32)
            y_R *= up_R
        tl.store(active + row_R - split, y_R.to(active.dtype.element_ty), mask=row_R < end)


@triton.jit
def _product(
    tile_RC, z, weight, offset_R, width: tl.constexpr, block_rows: tl.constexpr, block: tl.constexpr,
    kept: tl.constexpr,
):  # fmt: skip
    """Some rows of W · z, in fp32; `tile_RC` is their first tile, `kept` what cache z may come from."""
    sum_RC = tl.zeros((block_rows, block), tl.float32)
    for start in range(0, width, block):
        next_RC = _tile(weight, offset_R, start + block, width, block)
        column = start + tl.arange(0, block)
        z_C = tl.load(z + column, mask=column < width, other=0.0, cache_modifier=kept).to(tl.float32)
        sum_RC += tile_RC.to(tl.float32) * z_C[None, :]
        tile_RC = next_RC
    return tl.sum(sum_RC, 1)


@triton.jit
def residual_product(
    z, weight, scale, bias, x, rows,
    width: tl.constexpr, other_width: tl.constexpr, scaled: tl.constexpr, biased: tl.constexpr,
    block_rows: tl.constexpr, block: tl.constexpr, early: tl.constexpr,
):  # fmt: skip
    """Some rows of x += W · z + b.

    z and the matrix's columns are `width` numbers of one source, then `other_width` ones of another, each with a row
    of scales of its own. If `early` is 2 the other source is whole already when this begins, whatever runs before it.
    """
    row_R = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    held_R = tl.minimum(row_R, rows - 1)
    offset_R = held_R.to(tl.int64) * (width + other_width)
    if early:
        gdc_launch_dependents()
    y_R = tl.zeros((block_rows,), tl.float32)
    if other_width > 0:
        tile_RC = _tile(weight + width, offset_R, 0, other_width, block)
        if early == 1:
            gdc_wait()
        # This may begin before the first level of the cache has let go of an older z.
        kept: tl.constexpr = ".cg" if early == 2 else ""
        y_R = _product(tile_RC, z + width, weight + width, offset_R, other_width, block_rows, block, kept)
        if scaled:
            y_R *= tl.load(scale + rows + held_R)
    tile_RC = _tile(weight, offset_R, 0, width, block)
    if early == 2 or (early == 1 and other_width == 0):
        gdc_wait()
    one_R = _product(tile_RC, z, weight, offset_R, width, block_rows, block, "")
    if scaled:
        one_R *= tl.load(scale + held_R)
    y_R += one_R
    if biased:
        y_R += tl.load(bias + held_R).to(tl.float32)
    y_R += tl.load(x + held_R).to(tl.float32)
    tl.store(x + row_R, y_R.to(x.dtype.element_ty), mask=row_R < rows)
