"""The Triton kernels behind `kernels`. Tensors are contiguous; names are those of the arguments there."""

# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def norms(
    x, gain1, bias1, gain2, bias2, out1, out2, statistics, width, epsilon, two: tl.constexpr, block: tl.constexpr
):  # fmt: skip
    """One token: both norms from one statistic, its mean and the inverse of its deviation."""
    token = tl.program_id(0)
    start = token.to(tl.int64) * width
    columns = tl.arange(0, block)
    inside = columns < width
    row = tl.load(x + start + columns, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(row, 0) / width
    centred = tl.where(inside, row - mean, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, 0) / width + epsilon)
    tl.store(statistics + 2 * token, mean)
    tl.store(statistics + 2 * token + 1, scale)
    normed = centred * scale
    one = normed * tl.load(gain1 + columns, mask=inside).to(tl.float32)
    tl.store(out1 + start + columns, one + tl.load(bias1 + columns, mask=inside).to(tl.float32), mask=inside)
    if two:
        other = normed * tl.load(gain2 + columns, mask=inside).to(tl.float32)
        tl.store(out2 + start + columns, other + tl.load(bias2 + columns, mask=inside).to(tl.float32), mask=inside)


@triton.jit
def _both_sums(a1, b1, a2, b2):
    """Two sums in one reduction."""
    return a1 + a2, b1 + b2


@triton.jit(do_not_specialize=["rows"])
def norms_backward(
    x, statistics, grad1, grad2, onto, gain1, gain2, out, sums, rows, width,
    two: tl.constexpr, both: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Some tokens, and their sums for the gains and biases."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    columns = tl.arange(0, block)
    inside = columns < width
    by1 = tl.load(gain1 + columns, mask=inside, other=0.0).to(tl.float32)
    if two:
        by2 = tl.load(gain2 + columns, mask=inside, other=0.0).to(tl.float32)
    sum_gain1 = tl.zeros((block,), tl.float32)
    sum_bias1 = tl.zeros((block,), tl.float32)
    sum_gain2 = tl.zeros((block,), tl.float32)
    sum_bias2 = tl.zeros((block,), tl.float32)
    for token in range(program, rows, programs):
        start = tl.cast(token, tl.int64) * width
        mean = tl.load(statistics + 2 * token)
        scale = tl.load(statistics + 2 * token + 1)
        numbers = tl.load(x + start + columns, mask=inside, other=0.0).to(tl.float32)
        of1 = tl.load(grad1 + start + columns, mask=inside, other=0.0).to(tl.float32)
        before = tl.load(onto + start + columns, mask=inside, other=0.0).to(tl.float32)
        normed = (numbers - mean) * scale
        if two:
            of2 = tl.load(grad2 + start + columns, mask=inside, other=0.0).to(tl.float32)
            sum_gain2 += of2 * normed
            sum_bias2 += of2
            inner = of1 * by1 + of2 * by2
        else:
            if both:
                of1 += tl.load(grad2 + start + columns, mask=inside, other=0.0).to(tl.float32)
            inner = of1 * by1
        sum_gain1 += of1 * normed
        sum_bias1 += of1
        total, along = tl.reduce((inner, inner * normed), 0, _both_sums)
        change = scale * (inner - total / width - normed * (along / width))
        tl.store(out + start + columns, before + change, mask=inside)
    place = sums + program * width + columns
    stride = programs * width
    tl.store(place, sum_gain1, mask=inside)
    tl.store(place + stride, sum_bias1, mask=inside)
    if two:
        tl.store(place + 2 * stride, sum_gain2, mask=inside)
        tl.store(place + 3 * stride, sum_bias2, mask=inside)


@triton.jit
def _activated(x, kind: tl.constexpr):
    """The activation and its derivative."""
    if kind == "silu":
        share = tl.sigmoid(x)
        out = x * share
        slope = share + out * (1.0 - share)
    elif kind == "gelu_new":
        # tanh(y) is 2 sigmoid(2 y) - 1, so (1 + tanh(y)) / 2 is sigmoid(2 y).
        share = tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
        out = x * share
        slope = share + out * (1.0 - share) * 1.5957691216057308 * (1.0 + 0.134145 * x * x)
    else:
        # The normal distribution's upper tail by Abramowitz and Stegun's formula 26.2.17, off by at most 7.5e-8: it
        # shares the exponential with the derivative, where the error function would be most of the kernel's time.
        density = 0.3989422804014327 * tl.exp(-0.5 * x * x)
        t = 1.0 / (1.0 + 0.2316419 * tl.abs(x))
        factor = -1.821255978 + t * 1.330274429
        factor = -0.356563782 + t * (1.781477937 + t * factor)
        tail = density * t * (0.319381530 + t * factor)
        share = tl.where(x < 0.0, tail, 1.0 - tail)
        out = x * share
        slope = share + x * density
    return out, slope


@triton.jit
def activate(up, out, count, kind: tl.constexpr, block: tl.constexpr):
    """Some numbers."""
    places = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = places < count
    active, _ = _activated(tl.load(up + places, mask=inside, other=0.0).to(tl.float32), kind)
    tl.store(out + places, active, mask=inside)


@triton.jit(do_not_specialize=["rows"])
def activate_backward(
    up, grad, out, sums, rows, width,
    kind: tl.constexpr, part: tl.constexpr, tile_rows: tl.constexpr, tile: tl.constexpr,
):  # fmt: skip
    """A tile of columns over some tokens."""
    columns = tl.program_id(0) * tile + tl.arange(0, tile)
    first = tl.program_id(1) * part
    # Only the start of a part can lie beyond 32 bits: 64-bit places for every number would cost more than the loads.
    start = first.to(tl.int64) * width
    total = tl.zeros((tile,), tl.float32)
    for step in range(0, part, tile_rows):
        row = step + tl.arange(0, tile_rows)
        places = row[:, None] * width + columns[None, :]
        inside = (row[:, None] < rows - first) & (columns[None, :] < width)
        active, slope = _activated(tl.load(up + start + places, mask=inside, other=0.0).to(tl.float32), kind)
        grad_up = tl.load(grad + start + places, mask=inside, other=0.0).to(tl.float32) * slope
        tl.store(out + start + places, active, mask=inside)
        tl.store(grad + start + places, grad_up, mask=inside)
        total += tl.sum(grad_up, 0)
    tl.store(sums + tl.program_id(1) * width + columns, total, mask=columns < width)


@triton.jit(do_not_specialize=["rows"])
def column_sums(x, sums, rows, width, part: tl.constexpr, tile_rows: tl.constexpr, tile: tl.constexpr):
    """A tile of columns over some tokens."""
    columns = tl.program_id(0) * tile + tl.arange(0, tile)
    first = tl.program_id(1) * part
    start = first.to(tl.int64) * width
    total = tl.zeros((tile_rows, tile), tl.float32)
    for step in range(0, part, tile_rows):
        row = step + tl.arange(0, tile_rows)
        inside = (row[:, None] < rows - first) & (columns[None, :] < width)
        places = row[:, None] * width + columns[None, :]
        total += tl.load(x + start + places, mask=inside, other=0.0).to(tl.float32)
    tl.store(sums + tl.program_id(1) * width + columns, tl.sum(total, 0), mask=columns < width)


@triton.jit
def turn(
    qkv, cos, sin, row_width, turning, head_dim, half,
    sign: tl.constexpr, interleaved: tl.constexpr, heads_block: tl.constexpr, half_block: tl.constexpr,
):  # fmt: skip
    """One token: all heads that turn, or turn back where `sign` is -1."""
    row = tl.program_id(0).to(tl.int64)
    pair = tl.arange(0, half_block)
    head = tl.arange(0, heads_block)
    first = 2 * pair if interleaved else pair
    second = first + 1 if interleaved else first + half
    of_pair = pair < half
    # Both numbers of a pair turn by the same angle; the sine's sign stands with the second as it is.
    by_cos = tl.load(cos + row * 2 * half + first, mask=of_pair, other=0.0).to(tl.float32)[None, :]
    by_sin = tl.load(sin + row * 2 * half + second, mask=of_pair, other=0.0).to(tl.float32)[None, :]
    inside = (head[:, None] < turning) & of_pair[None, :]
    start = qkv + row * row_width + head[:, None] * head_dim
    a = tl.load(start + first[None, :], mask=inside, other=0.0).to(tl.float32)
    b = tl.load(start + second[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.store(start + first[None, :], a * by_cos - sign * b * by_sin, mask=inside)
    tl.store(start + second[None, :], b * by_cos + sign * a * by_sin, mask=inside)


@triton.jit(do_not_specialize=["rows"])
def turn_back(
    q, k, v, cos, sin, out, sums, rows, heads, groups, head_dim, half,
    interleaved: tl.constexpr, part: tl.constexpr, tile_rows: tl.constexpr, head_block: tl.constexpr,
):  # fmt: skip
    """One head over some tokens, from its own tensor into its columns."""
    head = tl.program_id(0)
    first = tl.program_id(1) * part
    if head < heads:
        source, of, count = q, head, heads
    elif head < heads + groups:
        source, of, count = k, head - heads, groups
    else:
        source, of, count = v, head - heads - groups, groups
    turns = head < heads + groups
    width = (heads + 2 * groups) * head_dim
    place = tl.arange(0, head_block)
    if interleaved:
        partner = tl.where(place % 2 == 0, place + 1, place - 1)
    else:
        partner = tl.where(place < half, place + half, place - half)
    turned = (place < 2 * half) & turns
    source += (first.to(tl.int64) * count + of) * head_dim
    out += first.to(tl.int64) * width + head * head_dim
    cos += first * 2 * half
    sin += first * 2 * half
    total = tl.zeros((tile_rows, head_block), tl.float32)
    for step in range(0, part, tile_rows):
        row = step + tl.arange(0, tile_rows)[:, None]
        inside = (row < rows - first) & (place[None, :] < head_dim)
        numbers = tl.load(source + row * count * head_dim + place[None, :], mask=inside, other=0.0).to(tl.float32)
        if turns:
            turning = inside & turned[None, :]
            others = tl.load(source + row * count * head_dim + partner[None, :], mask=turning, other=0.0)
            angles = row * 2 * half + place[None, :]
            by_cos = tl.load(cos + angles, mask=turning, other=1.0).to(tl.float32)
            by_sin = tl.load(sin + angles, mask=turning, other=0.0).to(tl.float32)
            numbers = numbers * by_cos - others.to(tl.float32) * by_sin
        tl.store(out + row * width + place[None, :], numbers, mask=inside)
        total += tl.where(inside, numbers, 0.0)
    place_of_sums = tl.program_id(1) * width + head * head_dim + place
    tl.store(sums + place_of_sums, tl.sum(total, 0), mask=place < head_dim)


@triton.jit
def add(x, y, z, out, count, block: tl.constexpr):
    """Some numbers."""
    places = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = places < count
    total = tl.load(x + places, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(y + places, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(z + places, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + places, total, mask=inside)


@triton.jit
def cross_entropy(logits, target, nll, width, scale, tile: tl.constexpr):
    """One row of logits: once for the sum of exponentials, once for the gradient."""
    row = tl.program_id(0)
    start = logits + row.to(tl.int64) * width
    right = tl.load(target + row)
    largest = tl.full((tile,), float("-inf"), tl.float32)
    total = tl.zeros((tile,), tl.float32)
    for first in range(0, width, tile):
        columns = first + tl.arange(0, tile)
        numbers = tl.load(start + columns, mask=columns < width, other=float("-inf")).to(tl.float32)
        above = tl.maximum(largest, numbers)
        # A lane that has seen nothing but minus infinity has nothing to scale.
        total = total * tl.where(above > largest, tl.exp(largest - above), 1.0)
        total += tl.where(numbers == float("-inf"), 0.0, tl.exp(numbers - above))  # NaN stays
        largest = above
    peak = tl.max(largest, 0)
    log_sum = peak + tl.log(tl.sum(tl.where(total == 0.0, 0.0, total * tl.exp(largest - peak)), 0))
    tl.store(nll + row, log_sum - tl.load(start + right).to(tl.float32))
    tl.debug_barrier()
    for first in range(0, width, tile):
        columns = first + tl.arange(0, tile)
        inside = columns < width
        numbers = tl.load(start + columns, mask=inside, other=float("-inf")).to(tl.float32)
        share = tl.exp(numbers - log_sum)
        tl.store(start + columns, (share - tl.where(columns == right, 1.0, 0.0)) * scale, mask=inside)
