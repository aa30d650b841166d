"""A block's elementwise work in Triton: the functions of `plain`, each in one or two reads of what it works on.

All is memory-bound. Arithmetic is in fp32 and rounded once. Sums over tokens are taken in parts, one a program, and the
parts are added up by torch, so their order does not change from run to run.
"""

import torch
import triton
from torch import Tensor

from roslin.model.config import Activation
from roslin.model.rotary import Turns
from roslin.tune.passes import triton_kernels as kernel
from roslin.tune.passes.plain import Affine

ROWS_A_PART = 128
"""Tokens whose sum over columns one program takes."""
TILE = (16, 256)
"""Tokens and columns that a program holds at one time."""
NORM_PROGRAMS = 264
"""Programs of the norms' backward pass, two for each multiprocessor of an H100: each leaves sums of its own."""
NORM_STAGES = 1
"""Tokens that one of those has on their way from memory at one time."""
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
        stages=NORM_STAGES,
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
    parts = triton.cdiv(rows, ROWS_A_PART)
    sums = up_NF.new_empty((parts, width), dtype=torch.float32)
    kernel.activate_backward[(triton.cdiv(width, TILE[1]), parts)](
        up_NF, grad_NF, out_NF, sums, rows, width, kind=activation, part=ROWS_A_PART, tile_rows=TILE[0], tile=TILE[1]
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
        interleaved=turns.interleaved,
        heads_block=triton.next_power_of_2(turns.turning),
        half_block=triton.next_power_of_2(half),
    )
    return qkv_NGK


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
