"""A Triton kernel of attention over a beginning that several sequences share: read once for all of them.

What their queries gather there is left in parts, which `attend_one` and `attend_shared` add to what each gathers of its
own places. To be imported only where Triton is.
"""

# mypy: ignore-errors

import triton
import triton.language as tl

from roslin.engine.gpu.attention import NOTHING, turned


@triton.jit
def attend_prefix(
    parts, sums, qkv, keys, values, tables, tiles, cos, sin,
    qkv_stride, table_stride, tile_stride, turn_stride, scale,
    groups: tl.constexpr, shared: tl.constexpr, head_dim: tl.constexpr, turning: tl.constexpr,
    interleaved: tl.constexpr, shares: tl.constexpr, block_size: tl.constexpr, rows: tl.constexpr,
    tile: tl.constexpr, width: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Some tokens, a key's head, and one of `shares` parts of the places that they share.

    A row of `tiles` has how many places that is (0: the row is nobody's), a slot in whose blocks they lie, and the
    tokens' places in the stream, -1 behind the last one. `qkv` begins each row with queries, which are turned here if
    `turning` is not 0. Each of the tokens' queries leaves the highest of its scores, the sum of its weights, and its
    weighted values.
    """
    entry, group, share = tiles + tl.program_id(0) * tile_stride, tl.program_id(1), tl.program_id(2)
    length = tl.load(entry)
    if length > 0:
        row_R = tl.arange(0, rows)
        token_R = tl.load(entry + 2 + row_R // shared, mask=row_R < rows // shared * shared, other=-1).to(tl.int64)
        there_R = token_R >= 0
        token_R = tl.maximum(token_R, 0)
        head_R = group * shared + row_R % shared
        dim_K = tl.arange(0, width)[None, :]
        inside_K = dim_K < head_dim
        inside_RK = there_R[:, None] & inside_K
        kind: tl.constexpr = qkv.dtype.element_ty
        own_R1 = qkv + (token_R * qkv_stride + head_R * head_dim)[:, None]
        turn_R1 = (token_R * turn_stride)[:, None]
        q_RK = turned(own_R1, dim_K, cos + turn_R1, sin + turn_R1, inside_RK, turning, interleaved).to(kind)
        table = tables + tl.load(entry + 1).to(tl.int64) * table_stride
        key_base = keys + group * (block_size * head_dim)
        value_base = values + group * (block_size * head_dim)
        most_R = tl.full((rows,), NOTHING, tl.float32)
        total_R = tl.zeros((rows,), tl.float32)
        out_RK = tl.zeros((rows, width), tl.float32)
        per = tl.cdiv(tl.cdiv(length, shares), tile) * tile
        end = tl.minimum((share + 1) * per, length)
        for start in range(share * per, end, tile):
            place_T = start + tl.arange(0, tile)
            seen_T = place_T < end
            block_T = tl.load(table + place_T // block_size, mask=seen_T, other=0).to(tl.int64)
            row_T1 = (block_T * (groups * block_size) + place_T % block_size)[:, None] * head_dim
            read_TK = seen_T[:, None] & inside_K
            k_TK = tl.load(key_base + row_T1 + dim_K, mask=read_TK, other=0.0).to(kind)
            v_TK = tl.load(value_base + row_T1 + dim_K, mask=read_TK, other=0.0).to(kind)
            score_RT = tl.dot(q_RK, tl.trans(k_TK), input_precision=precision) * scale
            score_RT = tl.where(seen_T[None, :], score_RT, float("-inf"))
            higher_R = tl.maximum(most_R, tl.max(score_RT, 1))
            kept_R = tl.exp2(most_R - higher_R)
            weight_RT = tl.exp2(score_RT - higher_R[:, None])
            total_R = total_R * kept_R + tl.sum(weight_RT, 1)
            out_RK = out_RK * kept_R[:, None] + tl.dot(weight_RT.to(kind), v_TK, input_precision=precision)
            most_R = higher_R
        place_R = (token_R * (groups * shared) + head_R) * shares + share
        tl.store(parts + place_R[:, None] * width + dim_K, out_RK, mask=there_R[:, None])
        tl.store(sums + place_R * 2, most_R, mask=there_R)
        tl.store(sums + place_R * 2 + 1, total_R, mask=there_R)
