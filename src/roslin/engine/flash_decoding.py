"""Paged attention of single tokens as Triton kernels: each sequence is cut into parts that run beside each other.

Each part gathers with a softmax of its own, and a second kernel weighs the parts together. To be imported only where
Triton is.
"""

# mypy: ignore-errors

import torch
import triton
import triton.language as tl
from torch import Tensor

from roslin.engine.blocks import BLOCK
from roslin.engine.queries import Layer, Queries

PART = 256
"""Places that one program reads."""
MOST_PARTS = 64


class TritonAttention:
    """Split-cache attention by Triton's kernels."""

    chunk = 16

    def write(self, layer: Layer, k_NGK: Tensor, v_NGK: Tensor, places_N: Tensor) -> None:
        """Keep keys and values at these places."""
        keys, values = layer
        k_NGK, v_NGK = k_NGK.contiguous(), v_NGK.contiguous()
        tokens, groups, head_dim = k_NGK.shape
        _write[(tokens, groups)](
            keys, values, k_NGK, v_NGK, places_N, groups, head_dim, BLOCK, triton.next_power_of_2(head_dim)
        )

    def attend(self, layer: Layer, q_MHK: Tensor, queries: Queries) -> Tensor:
        """What each token gathers, [M, H, K]."""
        keys, values = layer
        q_MHK = q_MHK.contiguous()
        tokens, heads, head_dim = q_MHK.shape
        groups = keys.shape[1]
        size = max(PART, triton.next_power_of_2(triton.cdiv(queries.longest, MOST_PARTS)))
        parts = triton.cdiv(queries.longest, size)
        gathered = torch.empty(tokens, heads, parts, head_dim, dtype=torch.float32, device=q_MHK.device)
        sums = torch.empty(tokens, heads, parts, 2, dtype=torch.float32, device=q_MHK.device)
        out_MHK = torch.empty_like(q_MHK)
        width = triton.next_power_of_2(head_dim)
        _attend_part[(tokens, groups, parts)](
            gathered, sums, q_MHK, keys, values, queries.tables_SW, queries.slots_M, queries.lengths_M,
            queries.tables_SW.stride(0), queries.window or 0, head_dim**-0.5,
            heads, groups, head_dim, BLOCK, size, parts, width, triton.next_power_of_2(heads // groups), 32,
        )  # fmt: skip
        _weigh_parts[(tokens, heads)](
            out_MHK, gathered, sums, heads, head_dim, parts, triton.next_power_of_2(parts), width
        )
        return out_MHK


@triton.jit
def _write(keys, values, k, v, places, groups, head_dim, block_size: tl.constexpr, width: tl.constexpr):
    token, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    dims = tl.arange(0, width)
    inside = dims < head_dim
    place = tl.load(places + token)
    source = (token * groups + group) * head_dim + dims
    target = (((place // block_size) * groups + group) * block_size + place % block_size) * head_dim + dims
    tl.store(keys + target, tl.load(k + source, mask=inside), mask=inside)
    tl.store(values + target, tl.load(v + source, mask=inside), mask=inside)


@triton.jit
def _attend_part(
    gathered, sums, q, keys, values, tables, slots, lengths, table_stride, window, scale,
    heads, groups, head_dim, block_size: tl.constexpr, size: tl.constexpr, parts,
    width: tl.constexpr, several: tl.constexpr, tile: tl.constexpr,
):  # fmt: skip
    token, group, part = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    shared = heads // groups
    dims, rows = tl.arange(0, width), tl.arange(0, several)
    head = group * shared + rows
    asked = (rows < shared)[:, None] & (dims < head_dim)[None, :]
    q_SK = tl.load(q + (token * heads + head)[:, None] * head_dim + dims[None, :], mask=asked, other=0.0)
    q_SK = q_SK.to(tl.float32) * scale
    length = tl.load(lengths + token)
    first = tl.where(window > 0, tl.maximum(length - window, 0), 0)
    table = tables + tl.load(slots + token).to(tl.int64) * table_stride
    most_S = tl.full((several,), float("-inf"), tl.float32)
    total_S = tl.zeros((several,), tl.float32)
    out_SK = tl.zeros((several, width), tl.float32)
    begin = tl.maximum(part * size, first // tile * tile)
    end = tl.minimum((part + 1) * size, length)
    for start in range(begin, end, tile):
        places_T = start + tl.arange(0, tile)
        seen_T = (places_T >= first) & (places_T < end)
        block_T = tl.load(table + places_T // block_size, mask=seen_T, other=0).to(tl.int64)
        row_T = (block_T * groups + group) * block_size + places_T % block_size
        offset_TK = row_T[:, None] * head_dim + dims[None, :]
        read_TK = seen_T[:, None] & (dims < head_dim)[None, :]
        k_TK = tl.load(keys + offset_TK, mask=read_TK, other=0.0).to(tl.float32)
        v_TK = tl.load(values + offset_TK, mask=read_TK, other=0.0).to(tl.float32)
        scores_ST = tl.sum(q_SK[:, None, :] * k_TK[None, :, :], 2)
        scores_ST = tl.where(seen_T[None, :], scores_ST, float("-inf"))
        higher_S = tl.maximum(most_S, tl.max(scores_ST, 1))
        weights_ST = tl.exp(scores_ST - higher_S[:, None])
        kept_S = tl.exp(most_S - higher_S)
        total_S = total_S * kept_S + tl.sum(weights_ST, 1)
        out_SK = out_SK * kept_S[:, None] + tl.sum(weights_ST[:, :, None] * v_TK[None, :, :], 1)
        most_S = higher_S
    place_S = (token * heads + head) * parts + part
    tl.store(gathered + place_S[:, None] * head_dim + dims[None, :], out_SK, mask=asked)
    tl.store(sums + place_S * 2, most_S, mask=rows < shared)
    tl.store(sums + place_S * 2 + 1, total_S, mask=rows < shared)


@triton.jit
def _weigh_parts(out, gathered, sums, heads, head_dim, parts, all_parts: tl.constexpr, width: tl.constexpr):
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    dims, rows = tl.arange(0, width), tl.arange(0, all_parts)
    place_P = (token * heads + head) * parts + rows
    most_P = tl.load(sums + place_P * 2, mask=rows < parts, other=float("-inf"))
    total_P = tl.load(sums + place_P * 2 + 1, mask=rows < parts, other=0.0)
    weight_P = tl.exp(most_P - tl.max(most_P, 0))
    inside = (rows < parts)[:, None] & (dims < head_dim)[None, :]
    part_PK = tl.load(gathered + place_P[:, None] * head_dim + dims[None, :], mask=inside, other=0.0)
    out_K = tl.sum(part_PK * weight_P[:, None], 0) / tl.sum(total_P * weight_P, 0)
    tl.store(out + (token * heads + head) * head_dim + dims, out_K.to(out.dtype.element_ty), mask=dims < head_dim)
