"""Matrices in 4 bits as Triton kernels read them: eight codes a word, each group of columns with a scale and a shift.

Within a group, code k of word j belongs to column `k * words + j`, where `words` is how many the group has: words that
lie beside each other meet numbers of a vector that do so too. Beyond the matrix's last column codes are 0, and so must
be what they are multiplied with.
"""

# mypy: ignore-errors

import triton
import triton.language as tl

from roslin.engine.gpu.normed import normed

CODES = tl.constexpr(8)
"""Codes of a word."""
ALONE, AT_ONCE = tl.constexpr(1), tl.constexpr(4)
"""Words of a thread, by rows and along them: 16 bytes."""


@triton.jit
def words_of(weight, offset_R, start, count: tl.constexpr, words: tl.constexpr):
    """Words `start` and on of the matrix's rows at `offset_R`; zeros beyond `count`."""
    word_W = start + tl.arange(0, words)[None, :]
    return tl.load(weight + offset_R[:, None] + word_W, mask=word_W < count, other=0, eviction_policy="evict_first")


@triton.jit
def raised(word, k: tl.constexpr):
    """Code k of each word, plus 16, in fp32: its bits are put where the first four of a mantissa stand."""
    if 4 * k < 19:  # noqa: SIM108 - what is constant decides what is compiled
        moved = word << (19 - 4 * k)
    else:
        moved = word >> (4 * k - 19)
    return ((moved & 0x00780000) | 0x41800000).to(tl.float32, bitcast=True)


@triton.jit
def scales_of(pairs, offset_R, word_W, count: tl.constexpr, in_group: tl.constexpr):
    """The scale and the shift that each word's group has, in fp32."""
    # Neighbours read the same pair, or the next: said to be in a row, but at any place, they are read one by one by the
    # threads that hold the words, and not handed over by way of shared memory (which Triton 3.6 would do).
    group_W = tl.max_contiguous(tl.multiple_of(word_W // in_group, (ALONE, ALONE)), (ALONE, AT_ONCE))
    pair_RW = tl.load(pairs + offset_R[:, None] + group_W, mask=word_W < count, other=0)
    scale_RW = pair_RW.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    shift_RW = (pair_RW >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    return scale_RW, shift_RW


@triton.jit
def column_of(word, k: tl.constexpr, in_group: tl.constexpr):
    """The matrix's column of code k of a word."""
    return word // in_group * (in_group * CODES) + k * in_group + word % in_group


@triton.jit
def packed_sum(
    tile_RW, weight, pairs, offset_R, pair_offset_R, x, gain, shift, mean, inverse,
    norm: tl.constexpr, width: tl.constexpr, group: tl.constexpr, block_rows: tl.constexpr, words: tl.constexpr,
    kept: tl.constexpr,
):  # fmt: skip
    """Some rows of W · norm(x), in fp32; `tile_RW` holds their first words."""
    in_group: tl.constexpr = group // CODES
    count: tl.constexpr = (width + group - 1) // group * in_group
    sum_RW = tl.zeros((block_rows, words), tl.float32)
    for start in range(0, count, words):
        next_RW = words_of(weight, offset_R, start + words, count, words)
        word_W = start + tl.arange(0, words)[None, :]
        scale_RW, shift_RW = scales_of(pairs, pair_offset_R, word_W, count, in_group)
        part_RW = tl.zeros((block_rows, words), tl.float32)
        whole_W = tl.zeros((1, words), tl.float32)
        for k in tl.static_range(CODES):
            column_W = tl.multiple_of(column_of(word_W, k, in_group), (ALONE, AT_ONCE))
            # A thread that takes as many numbers as words has those that it multiplies its words with.
            column_W = tl.max_contiguous(column_W, (ALONE, AT_ONCE))
            x_W = normed(x, gain, shift, column_W, column_W < width, mean, inverse, norm, kept)
            part_RW += raised(tile_RW, k) * x_W
            whole_W += x_W
        sum_RW += scale_RW * part_RW + (shift_RW - 16.0 * scale_RW) * whole_W
        tile_RW = next_RW
    return tl.sum(sum_RW, 1)


@triton.jit
def few_packed(
    x, weight, pairs, offset_R, pair_offset_R, token_T, seen_T, x_stride,
    width: tl.constexpr, group: tl.constexpr, block_rows: tl.constexpr, words: tl.constexpr, few: tl.constexpr,
):  # fmt: skip
    """Some rows of W · x of every token, in fp32; the matrix's numbers are rounded to x's dtype."""
    in_group: tl.constexpr = group // CODES
    count: tl.constexpr = (width + group - 1) // group * in_group
    sum_RT = tl.zeros((block_rows, few), tl.float32)
    for start in range(0, count, words):
        tile_RW = words_of(weight, offset_R, start, count, words)
        word_W = start + tl.arange(0, words)
        scale_RW, shift_RW = scales_of(pairs, pair_offset_R, word_W[None, :], count, in_group)
        for k in tl.static_range(CODES):
            column_W1 = column_of(word_W, k, in_group)[:, None]
            place_WT = token_T[None, :] * x_stride + column_W1
            x_WT = tl.load(x + place_WT, mask=(column_W1 < width) & seen_T[None, :], other=0.0)
            w_RW = (raised(tile_RW, k) - 16.0) * scale_RW + shift_RW
            sum_RT = tl.dot(w_RW.to(x_WT.dtype), x_WT, sum_RT, input_precision="ieee")
    return sum_RT


@triton.jit
def unpack(
    words, pairs, out, word_stride, pair_stride, out_stride, width, group: tl.constexpr, block: tl.constexpr
):  # fmt: skip
    """Some columns of one row, multiplied out in fp32 and rounded to `out`'s dtype."""
    in_group: tl.constexpr = group // CODES
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block + tl.arange(0, block)
    inside = column < width
    within = column % group
    word = tl.load(words + row * word_stride + column // group * in_group + within % in_group, mask=inside, other=0)
    code = ((word >> (within // in_group * 4)) & 15).to(tl.float32)
    pair = tl.load(pairs + row * pair_stride + column // group, mask=inside, other=0)
    scale = pair.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    shift = (pair >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    tl.store(out + row * out_stride + column, (code * scale + shift).to(out.dtype.element_ty), mask=inside)
