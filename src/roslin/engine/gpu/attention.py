"""Triton kernels of attention over the paged cache: single tokens, prompts, and what writes to the cache before both.

Scores are in base 2 and in fp32. All that changes from step to step is read from tensors, and grids do not depend on
it, so that a step can be captured in a CUDA graph. To be imported only where Triton is.
"""

# mypy: ignore-errors

import triton
import triton.language as tl

from roslin.engine.gpu.rounding import as_kept
from roslin.engine.gpu.vector_kernels import gdc_launch_dependents, gdc_wait

NOTHING = tl.constexpr(-1e30)
"""The highest score of nobody: finite, so that no difference of two is a NaN."""


@triton.jit
def turned(base, place, cos, sin, inside, turning: tl.constexpr, interleaved: tl.constexpr):
    """Numbers of a head, in fp32, its first `turning` ones turned by their position; `base` and `place` broadcast."""
    x = tl.load(base + place, mask=inside, other=0.0).to(tl.float32)
    if turning > 0:
        if interleaved:
            partner = place ^ 1
        else:
            partner = tl.where(place < turning // 2, place + turning // 2, place - turning // 2)
        turns = inside & (place < turning)
        other = tl.load(base + partner, mask=turns, other=0.0).to(tl.float32)
        x = x * tl.load(cos + place, mask=turns, other=1.0).to(tl.float32)
        x += other * tl.load(sin + place, mask=turns, other=0.0).to(tl.float32)
    return x


@triton.jit
def _share(position, old, window, common, split, splits: tl.constexpr, tile: tl.constexpr):
    """The first place that a token sees, and the places `lo` to `hi` of `old` ones that are a split's.

    The first `common` places are not looked at here.
    """
    first = tl.where(window > 0, tl.maximum(position + 1 - window, 0), 0)
    begin = tl.maximum(first // tile * tile, common)
    first = tl.maximum(first, common)
    per = tl.cdiv(tl.cdiv(tl.maximum(old - begin, 0), splits), tile) * tile
    lo = begin + split * per
    return first, lo, tl.minimum(lo + per, old)


@triton.jit
def _kept(
    own, key_base, value_base, table, position, cos, sin, dim_K, inside_K,
    turning: tl.constexpr, interleaved: tl.constexpr, groups: tl.constexpr, head_dim: tl.constexpr,
    block_size: tl.constexpr,
):  # fmt: skip
    """A token's own key, turned, and its value, which stand at `own` of a product's row; written to the cache."""
    kind: tl.constexpr = key_base.dtype.element_ty
    k_K = turned(own, dim_K, cos, sin, inside_K, turning, interleaved).to(own.dtype.element_ty)
    k_K = as_kept(k_K, kind)
    v_K = as_kept(tl.load(own + groups * head_dim + dim_K, mask=inside_K, other=0.0), kind)
    block = tl.load(table + position // block_size).to(tl.int64)
    place = (block * (groups * block_size) + position % block_size) * head_dim
    tl.store(key_base + place + dim_K, k_K, mask=inside_K)
    tl.store(value_base + place + dim_K, v_K, mask=inside_K)
    return k_K, v_K


@triton.jit
def _tile_of_one(
    q_K, key_base, value_base, table, start, first, hi, most_T, total_T, out_TK,
    dim_K, inside_K, groups: tl.constexpr, head_dim: tl.constexpr, block_size: tl.constexpr, tile: tl.constexpr,
):  # fmt: skip
    """Add a tile of places to what one query gathers. Every row keeps its own softmax: no row waits for another."""
    place_T = start + tl.arange(0, tile)
    seen_T = (place_T >= first) & (place_T < hi)
    block_T = tl.load(table + place_T // block_size, mask=seen_T, other=0).to(tl.int64)
    row_T1 = (block_T * (groups * block_size) + place_T % block_size)[:, None] * head_dim
    read_TK = seen_T[:, None] & inside_K
    k_TK = tl.load(key_base + row_T1 + dim_K, mask=read_TK, other=0.0)
    v_TK = tl.load(value_base + row_T1 + dim_K, mask=read_TK, other=0.0)
    score_T = tl.where(seen_T, tl.sum(q_K * k_TK.to(tl.float32), 1), float("-inf"))
    higher_T = tl.maximum(most_T, score_T)
    kept_T = tl.exp2(most_T - higher_T)
    weight_T = tl.exp2(score_T - higher_T)
    out_TK = out_TK * kept_T[:, None] + weight_T[:, None] * v_TK.to(tl.float32)
    return higher_T, total_T * kept_T + weight_T, out_TK


@triton.jit
def _with(most, total, out, more, its, part):
    """Two parts of what a query gathers, as one: the highest score, the sum of weights, and the weighted values."""
    higher = tl.maximum(most, more)
    kept, weight = tl.exp2(most - higher), tl.exp2(more - higher)
    return higher, total * kept + weight * its, out * kept[:, None] + weight[:, None] * part


@triton.jit
def attend_one(  # noqa: PLR0912, PLR0915 - one kernel
    out, parts, sums, counts, qkv, keys, values, tables, slots, positions, cos, sin,
    commons, common_parts, common_sums,
    out_stride, qkv_stride, table_stride, turn_stride, window, scale,
    groups: tl.constexpr, head_dim: tl.constexpr, turning: tl.constexpr, interleaved: tl.constexpr,
    fused: tl.constexpr, splits: tl.constexpr, block_size: tl.constexpr, tile: tl.constexpr, width: tl.constexpr,
    early: tl.constexpr,
    shares: tl.constexpr,
):  # fmt: skip
    """A token, a head and a split of its places, where every query has keys of its own.

    `fused`: the token's own key and value come from `qkv` and are written, and queries and keys are turned here; else
    both have happened, and `qkv` holds turned queries. A token whose position is negative is nobody's: it writes
    nothing and gathers zeros. `early`: this is launched while the kernel before it ends; once that has ended, the one
    behind may begin. The first `commons` places of each token are read elsewhere (`shared_prefix`), in `shares` parts
    where that is not 0: what was gathered there is added here.
    """
    if early:
        gdc_wait()
        gdc_launch_dependents()
    token, group, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    position = tl.load(positions + token).to(tl.int32)
    table = tables + tl.load(slots + token).to(tl.int64) * table_stride
    dim_K = tl.arange(0, width)[None, :]
    inside_K = dim_K < head_dim
    row = qkv + token * qkv_stride + group * head_dim
    cos_row, sin_row = cos + token * turn_stride, sin + token * turn_stride
    kind: tl.constexpr = qkv.dtype.element_ty
    if fused:
        q_K = turned(row, dim_K, cos_row, sin_row, inside_K, turning, interleaved).to(kind).to(tl.float32) * scale
        old = position
    else:
        q_K = tl.load(row + dim_K, mask=inside_K, other=0.0).to(tl.float32) * scale
        old = position + 1
    common = 0
    if shares > 0:
        common = tl.load(commons + token)
    first, lo, hi = _share(position, old, window, common, split, splits, tile)
    key_base = keys + group * (block_size * head_dim)
    value_base = values + group * (block_size * head_dim)
    most_T = tl.full((tile,), NOTHING, tl.float32)
    total_T = tl.zeros((tile,), tl.float32)
    out_TK = tl.zeros((tile, width), tl.float32)
    for start in range(lo, hi, tile):
        most_T, total_T, out_TK = _tile_of_one(
            q_K, key_base, value_base, table, start, first, hi, most_T, total_T, out_TK,
            dim_K, inside_K, groups, head_dim, block_size, tile,
        )  # fmt: skip
    most = tl.max(most_T, 0)
    weight_T = tl.exp2(most_T - most)
    total = tl.sum(total_T * weight_T, 0)
    out_K = tl.sum(out_TK * weight_T[:, None], 0)[None, :]
    if fused:  # noqa: SIM102 - what is constant decides what is compiled
        if (split == 0) & (position >= 0):
            k_K, v_K = _kept(
                row + groups * head_dim, key_base, value_base, table, position, cos_row, sin_row,
                dim_K, inside_K, turning, interleaved, groups, head_dim, block_size,
            )  # fmt: skip
            score = tl.sum(tl.sum(q_K * k_K.to(tl.float32), 1), 0)
            higher = tl.maximum(most, score)
            kept, weight = tl.exp2(most - higher), tl.exp2(score - higher)
            total = total * kept + weight
            out_K = out_K * kept + weight * v_K.to(tl.float32)
            most = higher
    if shares > 0:  # noqa: SIM102
        if (split == 0) & (common > 0):
            for share in tl.static_range(shares):
                place = (token * groups + group) * shares + share
                more, its = tl.load(common_sums + place * 2), tl.load(common_sums + place * 2 + 1)
                higher = tl.maximum(most, more)
                kept, weight = tl.exp2(most - higher), tl.exp2(more - higher)
                total = total * kept + weight * its
                out_K = out_K * kept + weight * tl.load(common_parts + place * width + dim_K)
                most = higher
    target = out + token * out_stride + group * head_dim + dim_K
    if splits == 1:
        tl.store(target, (out_K / tl.where(total > 0, total, 1.0)).to(out.dtype.element_ty), mask=inside_K)
    else:
        pair = token * groups + group
        tl.store(parts + (pair * splits + split) * width + dim_K, out_K)
        tl.store(sums + (pair * splits + split) * 2, most)
        tl.store(sums + (pair * splits + split) * 2 + 1, total)
        tl.debug_barrier()
        if tl.atomic_add(counts + pair, 1, sem="acq_rel") == splits - 1:
            tl.store(counts + pair, 0)
            split_S = tl.arange(0, splits)
            most_S = tl.load(sums + (pair * splits + split_S) * 2, cache_modifier=".cg")
            total_S = tl.load(sums + (pair * splits + split_S) * 2 + 1, cache_modifier=".cg")
            weight_S = tl.exp2(most_S - tl.max(most_S, 0))
            place_SK = (pair * splits + split_S)[:, None] * width + dim_K
            part_SK = tl.load(parts + place_SK, cache_modifier=".cg")
            total = tl.sum(total_S * weight_S, 0)
            out_K = tl.sum(part_SK * weight_S[:, None], 0)[None, :] / tl.where(total > 0, total, 1.0)
            tl.store(target, out_K.to(out.dtype.element_ty), mask=inside_K)


@triton.jit
def attend_shared(  # noqa: PLR0912, PLR0915 - one kernel
    out, parts, sums, counts, qkv, keys, values, tables, slots, positions, cos, sin,
    commons, common_parts, common_sums,
    out_stride, qkv_stride, table_stride, turn_stride, window, scale,
    groups: tl.constexpr, shared: tl.constexpr, head_dim: tl.constexpr, turning: tl.constexpr,
    interleaved: tl.constexpr, fused: tl.constexpr, splits: tl.constexpr, block_size: tl.constexpr,
    tile: tl.constexpr, width: tl.constexpr, several: tl.constexpr, precision: tl.constexpr, early: tl.constexpr,
    shares: tl.constexpr,
):  # fmt: skip
    """The same where `shared` queries read the same keys: they are the rows of matrix products."""
    if early:
        gdc_wait()
        gdc_launch_dependents()
    token, group, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    position = tl.load(positions + token).to(tl.int32)
    table = tables + tl.load(slots + token).to(tl.int64) * table_stride
    dim_K = tl.arange(0, width)[None, :]
    inside_K = dim_K < head_dim
    query_S = tl.arange(0, several)
    inside_SK = (query_S < shared)[:, None] & inside_K
    row = qkv + token * qkv_stride
    cos_row, sin_row = cos + token * turn_stride, sin + token * turn_stride
    kind: tl.constexpr = qkv.dtype.element_ty
    head_S1 = (group * shared + query_S)[:, None] * head_dim
    if fused:
        q_SK = turned(row + head_S1, dim_K, cos_row, sin_row, inside_SK, turning, interleaved).to(kind)
        old = position
    else:
        q_SK = tl.load(row + head_S1 + dim_K, mask=inside_SK, other=0.0)
        old = position + 1
    common = 0
    if shares > 0:
        common = tl.load(commons + token)
    first, lo, hi = _share(position, old, window, common, split, splits, tile)
    key_base = keys + group * (block_size * head_dim)
    value_base = values + group * (block_size * head_dim)
    most_S = tl.full((several,), NOTHING, tl.float32)
    total_S = tl.zeros((several,), tl.float32)
    out_SK = tl.zeros((several, width), tl.float32)
    for start in range(lo, hi, tile):
        place_T = start + tl.arange(0, tile)
        seen_T = (place_T >= first) & (place_T < hi)
        block_T = tl.load(table + place_T // block_size, mask=seen_T, other=0).to(tl.int64)
        row_T1 = (block_T * (groups * block_size) + place_T % block_size)[:, None] * head_dim
        read_TK = seen_T[:, None] & inside_K
        k_TK = tl.load(key_base + row_T1 + dim_K, mask=read_TK, other=0.0)
        v_TK = tl.load(value_base + row_T1 + dim_K, mask=read_TK, other=0.0)
        score_ST = tl.dot(q_SK, tl.trans(k_TK).to(kind), input_precision=precision) * scale
        score_ST = tl.where(seen_T[None, :], score_ST, float("-inf"))
        higher_S = tl.maximum(most_S, tl.max(score_ST, 1))
        kept_S = tl.exp2(most_S - higher_S)
        weight_ST = tl.exp2(score_ST - higher_S[:, None])
        total_S = total_S * kept_S + tl.sum(weight_ST, 1)
        out_SK = out_SK * kept_S[:, None] + tl.dot(weight_ST.to(kind), v_TK.to(kind), input_precision=precision)
        most_S = higher_S
    if fused:  # noqa: SIM102 - what is constant decides what is compiled
        if (split == 0) & (position >= 0):
            k_K, v_K = _kept(
                row + (groups * shared + group) * head_dim, key_base, value_base, table, position, cos_row, sin_row,
                dim_K, inside_K, turning, interleaved, groups, head_dim, block_size,
            )  # fmt: skip
            score_S = tl.sum(q_SK.to(tl.float32) * k_K.to(tl.float32), 1) * scale
            higher_S = tl.maximum(most_S, score_S)
            kept_S, weight_S = tl.exp2(most_S - higher_S), tl.exp2(score_S - higher_S)
            total_S = total_S * kept_S + weight_S
            out_SK = out_SK * kept_S[:, None] + weight_S[:, None] * v_K.to(tl.float32)
            most_S = higher_S
    if shares > 0:  # noqa: SIM102
        if (split == 0) & (common > 0):
            for share in tl.static_range(shares):
                place_S = ((token * groups + group) * shared + query_S) * shares + share
                told_S = query_S < shared
                more_S = tl.load(common_sums + place_S * 2, mask=told_S, other=NOTHING)
                its_S = tl.load(common_sums + place_S * 2 + 1, mask=told_S, other=0.0)
                part_SK = tl.load(common_parts + place_S[:, None] * width + dim_K, mask=told_S[:, None], other=0.0)
                most_S, total_S, out_SK = _with(most_S, total_S, out_SK, more_S, its_S, part_SK)
    target_SK = out + token * out_stride + head_S1 + dim_K
    if splits == 1:
        whole_SK = out_SK / tl.where(total_S > 0, total_S, 1.0)[:, None]
        tl.store(target_SK, whole_SK.to(out.dtype.element_ty), mask=inside_SK)
    else:
        pair = token * groups + group
        place_S = (pair * splits + split) * several + query_S
        tl.store(parts + place_S[:, None] * width + dim_K, out_SK)
        tl.store(sums + place_S * 2, most_S)
        tl.store(sums + place_S * 2 + 1, total_S)
        tl.debug_barrier()
        if tl.atomic_add(counts + pair, 1, sem="acq_rel") == splits - 1:
            tl.store(counts + pair, 0)
            most_S = tl.full((several,), NOTHING, tl.float32)
            total_S = tl.zeros((several,), tl.float32)
            out_SK = tl.zeros((several, width), tl.float32)
            for other in range(splits):
                place_S = (pair * splits + other) * several + query_S
                more_S = tl.load(sums + place_S * 2, cache_modifier=".cg")
                its_S = tl.load(sums + place_S * 2 + 1, cache_modifier=".cg")
                part_SK = tl.load(parts + place_S[:, None] * width + dim_K, cache_modifier=".cg")
                most_S, total_S, out_SK = _with(most_S, total_S, out_SK, more_S, its_S, part_SK)
            whole_SK = out_SK / tl.where(total_S > 0, total_S, 1.0)[:, None]
            tl.store(target_SK, whole_SK.to(out.dtype.element_ty), mask=inside_SK)


@triton.jit
def turn_and_write(
    q, qkv, keys, values, tables, slots, positions, cos, sin, q_stride, qkv_stride, table_stride, turn_stride,
    heads: tl.constexpr, groups: tl.constexpr, head_dim: tl.constexpr, turning: tl.constexpr,
    interleaved: tl.constexpr, block_size: tl.constexpr, several: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """A token and `several` of its heads: queries, turned, go into `q`, and turned keys and values into the cache.

    A token whose position is negative is nobody's: it writes nothing to the cache.
    """
    token, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    queries: tl.constexpr = (heads + several - 1) // several
    dim_K = tl.arange(0, width)[None, :]
    row = qkv + token * qkv_stride
    cos_row, sin_row = cos + token * turn_stride, sin + token * turn_stride
    if part < queries:
        head_S1 = (part * several + tl.arange(0, several))[:, None]
        inside_SK = (head_S1 < heads) & (dim_K < head_dim)
        q_SK = turned(row + head_S1 * head_dim, dim_K, cos_row, sin_row, inside_SK, turning, interleaved)
        tl.store(q + token * q_stride + head_S1 * head_dim + dim_K, q_SK.to(q.dtype.element_ty), mask=inside_SK)
    else:
        position = tl.load(positions + token).to(tl.int32)
        table = tables + tl.load(slots + token).to(tl.int64) * table_stride
        block = tl.load(table + tl.maximum(position, 0) // block_size).to(tl.int64)
        head_S1 = ((part - queries) * several + tl.arange(0, several))[:, None]
        inside_SK = (head_S1 < groups) & (dim_K < head_dim)
        own_S1 = row + (heads + head_S1) * head_dim
        k_SK = turned(own_S1, dim_K, cos_row, sin_row, inside_SK, turning, interleaved)
        v_SK = tl.load(own_S1 + groups * head_dim + dim_K, mask=inside_SK, other=0.0)
        written_SK = inside_SK & (position >= 0)
        place_SK = ((block * groups + head_S1) * block_size + position % block_size) * head_dim + dim_K
        kind: tl.constexpr = keys.dtype.element_ty
        tl.store(keys + place_SK, as_kept(k_SK.to(qkv.dtype.element_ty), kind), mask=written_SK)
        tl.store(values + place_SK, as_kept(v_SK, kind), mask=written_SK)


@triton.jit
def attend_run(
    out, q, keys, values, tables, runs, out_stride, q_stride, table_stride, window, scale,
    groups: tl.constexpr, shared: tl.constexpr, head_dim: tl.constexpr, block_size: tl.constexpr,
    rows: tl.constexpr, tile: tl.constexpr, width: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Up to `rows` tokens of one sequence that follow each other, and a head; keys and values are all in the cache.

    `runs` has for each program the first token's place in the stream, how many there are, the first one's position, and
    the slot.
    """
    entry, head = runs + 4 * tl.program_id(0), tl.program_id(1)
    first_row, count = tl.load(entry).to(tl.int64), tl.load(entry + 1)
    position, slot = tl.load(entry + 2), tl.load(entry + 3).to(tl.int64)
    group = head // shared
    table = tables + slot * table_stride
    dim_K = tl.arange(0, width)[None, :]
    inside_K = dim_K < head_dim
    row_R = tl.arange(0, rows)
    inside_RK = (row_R < count)[:, None] & inside_K
    of_q = q + (first_row + row_R)[:, None] * q_stride + head * head_dim
    q_RK = tl.load(of_q + dim_K, mask=inside_RK, other=0.0)
    key_base = keys + group * (block_size * head_dim)
    value_base = values + group * (block_size * head_dim)
    most_R = tl.full((rows,), NOTHING, tl.float32)
    total_R = tl.zeros((rows,), tl.float32)
    out_RK = tl.zeros((rows, width), tl.float32)
    own_R1 = (position + row_R)[:, None]
    end = position + count
    begin = tl.where(window > 0, tl.maximum(position + 1 - window, 0), 0) // tile * tile
    for start in range(begin, end, tile):
        place_T = start + tl.arange(0, tile)
        there_T = place_T < end
        block_T = tl.load(table + place_T // block_size, mask=there_T, other=0).to(tl.int64)
        row_T1 = (block_T * (groups * block_size) + place_T % block_size)[:, None] * head_dim
        read_TK = there_T[:, None] & inside_K
        k_TK = tl.load(key_base + row_T1 + dim_K, mask=read_TK, other=0.0).to(q_RK.dtype)
        v_TK = tl.load(value_base + row_T1 + dim_K, mask=read_TK, other=0.0).to(q_RK.dtype)
        score_RT = tl.dot(q_RK, tl.trans(k_TK), input_precision=precision) * scale
        seen_RT = (place_T[None, :] <= own_R1) & ((window <= 0) | (place_T[None, :] > own_R1 - window))
        score_RT = tl.where(seen_RT & there_T[None, :], score_RT, float("-inf"))
        higher_R = tl.maximum(most_R, tl.max(score_RT, 1))
        kept_R = tl.exp2(most_R - higher_R)
        weight_RT = tl.exp2(score_RT - higher_R[:, None])
        total_R = total_R * kept_R + tl.sum(weight_RT, 1)
        out_RK = out_RK * kept_R[:, None] + tl.dot(weight_RT.to(v_TK.dtype), v_TK, input_precision=precision)
        most_R = higher_R
    out_RK = out_RK / tl.where(total_R > 0, total_R, 1.0)[:, None]
    target_R1 = out + (first_row + row_R)[:, None] * out_stride + head * head_dim
    tl.store(target_R1 + dim_K, out_RK.to(out.dtype.element_ty), mask=inside_RK)
