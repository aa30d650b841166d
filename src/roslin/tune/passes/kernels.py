"""A block's elementwise work in Triton: the functions of `plain`, each in one or two reads of what it works on.

All is memory-bound. Arithmetic is in fp32 and rounded once. Sums over tokens are taken in parts, one a program, and the
parts are added up by torch, so their order does not change from run to run.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from roslin.model.attention import Attend, PackedAttention
from roslin.model.config import Activation
from roslin.model.rotary import Turns
from roslin.tune.passes import attention_kernels as attention_kernel
from roslin.tune.passes import plain
from roslin.tune.passes import triton_kernels as kernel
from roslin.tune.passes.plain import Affine

ROWS_A_PART = 128
"""Tokens whose sum over columns one program takes."""
TILE = (16, 256)
"""Tokens and columns that a program of column sums holds at one time."""
ACTIVATION_PART, ACTIVATION_TILE = 64, (8, 512)
"""The same for the activation's backward pass."""
NORM_PROGRAMS = 132
"""Programs of the norms' backward pass, one for each multiprocessor of an H100: each leaves sums of its own."""
ATTENTION_TILE = 64
"""Tokens that a program of attention works on, and that it looks at in one step."""
ATTENTION_STAGES = {"forward": 3, "queries": 2, "keys": 1}
"""Steps that each of its kernels has on their way from memory at one time: the fastest on a Hopper GPU."""
ATTENTION_TILES, ATTENTION_TILES_ON_HOPPER = 6, 7
"""Tiles of queries, keys or values that the greediest of them has in shared memory at one time, at most: before Hopper,
and since."""
VOCABULARY_TILE = 8192


def norms(x_ND: Tensor, affines: tuple[Affine, ...], epsilon: float) -> tuple[list[Tensor], Tensor]:
    """Layer norms of one stream, [N, D] for each pair of gain and bias; and each token's mean and inverse deviation."""
    outs = [torch.empty_like(x_ND) for _ in affines]
    (gain1, bias1), (gain2, bias2) = affines[0], affines[-1]
    rows, width = x_ND.shape
    statistics_N2 = x_ND.new_empty((rows, 2), dtype=torch.float32)
    kernel.norms[(rows,)](
        x_ND,
        gain1,
        bias1,
        gain2,
        bias2,
        outs[0],
        outs[-1],
        statistics_N2,
        width,
        epsilon,
        two=len(affines) == 2,
        **_row(width),
    )
    return outs, statistics_N2


def norms_backward(
    x_ND: Tensor, statistics_N2: Tensor, grads_ND: list[Tensor], affines: tuple[Affine, ...], onto_ND: Tensor
) -> tuple[Tensor, list[Affine]]:
    """`onto` plus the gradient that `norms` gives its input; and the gradients of gains and biases.

    More gradients than norms: the last norm's output was read more than once.
    """
    rows, width = x_ND.shape
    out_ND = torch.empty_like(x_ND)
    programs = min(rows, NORM_PROGRAMS)
    sums = x_ND.new_empty((2 * len(affines), programs, width), dtype=torch.float32)
    kernel.norms_backward[(programs,)](
        x_ND,
        statistics_N2,
        grads_ND[0],
        grads_ND[-1],
        onto_ND,
        affines[0][0],
        affines[-1][0],
        out_ND,
        sums,
        rows,
        width,
        two=len(affines) == 2,
        both=len(grads_ND) == 2,
        **_row(width),
    )
    found = iter(sums.sum(1).to(x_ND.dtype))
    return out_ND, list(zip(found, found, strict=True))


def activate(up_NF: Tensor, activation: Activation) -> Tensor:
    """The MLP's activation, [N, F]."""
    out_NF = torch.empty_like(up_NF)
    count = up_NF.numel()
    kernel.activate[(triton.cdiv(count, 2048),)](up_NF, out_NF, count, kind=activation, block=2048)
    return out_NF


def activate_backward(up_NF: Tensor, grad_NF: Tensor, activation: Activation) -> tuple[Tensor, Tensor, Tensor]:
    """The activation once more, the gradient of what went into it (in the place of `grad`), and its sums [F]."""
    rows, width = up_NF.shape
    out_NF = torch.empty_like(up_NF)
    parts, (tile_rows, tile) = triton.cdiv(rows, ACTIVATION_PART), ACTIVATION_TILE
    sums = up_NF.new_empty((parts, width), dtype=torch.float32)
    kernel.activate_backward[(triton.cdiv(width, tile), parts)](
        up_NF, grad_NF, out_NF, sums, rows, width, kind=activation, part=ACTIVATION_PART, tile_rows=tile_rows, tile=tile
    )
    return out_NF, grad_NF, sums.sum(0)


def column_sums(x_NC: Tensor) -> Tensor:
    """Sums over the tokens, [C], in fp32."""
    rows, width = x_NC.shape
    parts = triton.cdiv(rows, ROWS_A_PART)
    sums = x_NC.new_empty((parts, width), dtype=torch.float32)
    kernel.column_sums[(triton.cdiv(width, TILE[1]), parts)](
        x_NC, sums, rows, width, part=ROWS_A_PART, tile_rows=TILE[0], tile=TILE[1]
    )
    return sums.sum(0)


def turn(qkv_NGK: Tensor, turns: Turns) -> Tensor:
    """Queries and keys turned to their positions, in place."""
    return _turn(qkv_NGK, turns, 1)


def _turn(qkv_NGK: Tensor, turns: Turns, sign: int) -> Tensor:
    rows, heads, head_dim = qkv_NGK.shape
    half = turns.cos.shape[-2] * turns.cos.shape[-1] // 2
    kernel.turn[(rows,)](
        qkv_NGK,
        turns.cos.contiguous(),
        turns.sin.contiguous(),
        heads * head_dim,
        turns.turning,
        head_dim,
        half,
        sign=sign,
        interleaved=turns.interleaved,
        heads_block=triton.next_power_of_2(turns.turning),
        half_block=triton.next_power_of_2(half),
    )
    return qkv_NGK


@dataclass
class Attended:
    """Attention as the kernels keep it."""

    gathered_NHK: Tensor
    qkv_NGK: Tensor
    """Turned queries, keys and values, side by side."""
    log_sums_HN: Tensor
    """Base-2 logarithms of each query's sum of exponentials, fp32."""
    tiles: Tensor


def attend(qkv_NGK: Tensor, attend: Attend, layer: int, heads: tuple[int, int, int]) -> Attended | plain.Attended:
    """Attention over turned queries, keys and values that lie side by side; `heads` are how many each of them are.

    Windows and grouped heads go to torch's kernels, and so do heads that are too wide for a GPU's shared memory.
    """
    if not isinstance(attend, PackedAttention) or attend.window is not None or len(set(heads)) > 1:
        return plain.attend(qkv_NGK, attend, layer, heads)
    if qkv_NGK.is_cuda and not has_room(qkv_NGK.device, qkv_NGK.shape[-1], qkv_NGK.itemsize):
        return plain.attend(qkv_NGK, attend, layer, heads)
    tokens, head_dim = len(qkv_NGK), qkv_NGK.shape[-1]
    gathered_NHK = qkv_NGK.new_empty((tokens, heads[0], head_dim))
    log_sums_HN = qkv_NGK.new_empty((heads[0], tokens), dtype=torch.float32)
    tiles = attend.tiles(ATTENTION_TILE, qkv_NGK.device)
    numbers, how = _of_attention(qkv_NGK, heads[0])
    attention_kernel.forward[(len(tiles), heads[0])](
        qkv_NGK, gathered_NHK, log_sums_HN, tiles, *numbers, **how, num_stages=ATTENTION_STAGES["forward"]
    )
    return Attended(gathered_NHK, qkv_NGK, log_sums_HN, tiles)


@cache
def has_room(device: torch.device, head_dim: int, itemsize: int) -> bool:
    """Whether attention's kernels fit a GPU's shared memory, with numbers of `itemsize` bytes.

    Heads of 256, as GPT-J has them, want a Hopper GPU in bf16. Before Ampere there is little room, and Triton takes no
    products on a V100's tensor cores, which torch's kernels do.
    """
    gpu = torch.cuda.get_device_properties(device)
    if gpu.major < 8:
        return False
    tiles = ATTENTION_TILES_ON_HOPPER if gpu.major >= 9 else ATTENTION_TILES
    room: int = gpu.shared_memory_per_block_optin  # type: ignore[attr-defined]  # torch's stubs lack it
    return tiles * ATTENTION_TILE * _dims(head_dim) * itemsize <= room


def _dims(head_dim: int) -> int:
    """Numbers of a head as a tile has them."""
    return max(16, int(triton.next_power_of_2(head_dim)))


def attend_backward(kept: Attended | plain.Attended, grad_NHK: Tensor, turns: Turns) -> tuple[Tensor, Tensor]:
    """Gradients of queries, keys and values before the turn, side by side [N, (H + 2 G)·K], and their sums.

    What was kept is free afterwards.
    """
    if isinstance(kept, plain.Attended):
        q_NHK, k_NGK, v_NGK = torch.autograd.grad(kept.gathered_NHK, kept.heads, grad_NHK)
        kept.heads.clear()
        return turn_back(q_NHK, k_NGK, v_NGK, turns)
    qkv_NGK, heads = kept.qkv_NGK, kept.gathered_NHK.shape[1]
    numbers, how = _of_attention(qkv_NGK, heads)
    grad_qkv_NGK = torch.empty_like(qkv_NGK)
    products_HN = torch.empty_like(kept.log_sums_HN)
    grid = (len(kept.tiles), heads)
    grad_NHK = grad_NHK.contiguous()
    attention_kernel.backward_queries[grid](
        qkv_NGK,
        kept.gathered_NHK,
        grad_NHK,
        kept.log_sums_HN,
        products_HN,
        grad_qkv_NGK,
        kept.tiles,
        *numbers,
        **how,
        num_stages=ATTENTION_STAGES["queries"],
    )
    attention_kernel.backward_keys[grid](
        qkv_NGK,
        grad_NHK,
        kept.log_sums_HN,
        products_HN,
        grad_qkv_NGK,
        kept.tiles,
        *numbers,
        **how,
        num_stages=ATTENTION_STAGES["keys"],
    )
    kept.qkv_NGK = qkv_NGK.new_empty(0)
    grad_qkv_NR = _turn(grad_qkv_NGK, turns, -1).flatten(1)
    return grad_qkv_NR, column_sums(grad_qkv_NR)


def _of_attention(qkv_NGK: Tensor, heads: int) -> tuple[tuple[int | float, ...], dict[str, Any]]:
    """The sizes that every kernel of attention is told, and how it is to be compiled."""
    tokens, all_heads, head_dim = qkv_NGK.shape
    dims = _dims(head_dim)
    numbers = (tokens, heads, head_dim, all_heads * head_dim, math.log2(math.e) / math.sqrt(head_dim))
    how = {"tile": ATTENTION_TILE, "dims": dims, "num_warps": 4 if dims <= 128 else 8}
    return numbers, how | {"precision": "ieee" if qkv_NGK.dtype == torch.float32 else "tf32"}


def turn_back(q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, turns: Turns) -> tuple[Tensor, Tensor]:
    """Gradients of queries, keys and values before the turn, side by side [N, (H + 2 G)·K], and their sums."""
    rows, heads, head_dim = q_NHK.shape
    groups = k_NGK.shape[1]
    width = (heads + 2 * groups) * head_dim
    out_NR = q_NHK.new_empty((rows, width))
    parts = triton.cdiv(rows, ROWS_A_PART)
    sums = q_NHK.new_empty((parts, width), dtype=torch.float32)
    kernel.turn_back[(heads + 2 * groups, parts)](
        q_NHK.contiguous(),
        k_NGK.contiguous(),
        v_NGK.contiguous(),
        turns.cos.contiguous(),
        turns.sin.contiguous(),
        out_NR,
        sums,
        rows,
        heads,
        groups,
        head_dim,
        turns.cos.shape[-2] * turns.cos.shape[-1] // 2,
        interleaved=turns.interleaved,
        part=ROWS_A_PART,
        tile_rows=16,
        head_block=triton.next_power_of_2(head_dim),
    )
    return out_NR, sums.sum(0)


def add(x_ND: Tensor, y_ND: Tensor, z_ND: Tensor) -> Tensor:
    """The sum of three, rounded once."""
    out_ND = torch.empty_like(x_ND)
    count = x_ND.numel()
    kernel.add[(triton.cdiv(count, 2048),)](x_ND, y_ND, z_ND, out_ND, count, block=2048)
    return out_ND


def cross_entropy(logits_MV: Tensor, target_M: Tensor, scale: float) -> Tensor:
    """Cross-entropy (nats) of each row, [M]; the logits become `scale` times its gradient, in place."""
    rows, width = logits_MV.shape
    nll_M = logits_MV.new_empty(rows, dtype=torch.float32)
    tile = min(VOCABULARY_TILE, triton.next_power_of_2(width))
    kernel.cross_entropy[(rows,)](logits_MV, target_M, nll_M, width, scale, tile=tile, num_warps=8)
    return nll_M


def _row(width: int) -> dict[str, int]:
    """How a program holds a whole row."""
    block = triton.next_power_of_2(width)
    return {"block": block, "num_warps": min(max(block // 256, 1), 16)}
