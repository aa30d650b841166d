"""A block's elementwise work in plain torch: what the Triton kernels must equal, and what runs without a GPU.

Everything is computed in fp32, or in fp64 where the tensors are, and rounded once to the dtype of the tensors.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from roslin.model.attention import Attend
from roslin.model.config import Activation
from roslin.model.rotary import Turns

Affine = tuple[Tensor, Tensor]
"""Gain and bias of a norm, [D] each."""


def norms(x_ND: Tensor, affines: tuple[Affine, ...], epsilon: float) -> tuple[list[Tensor], Tensor]:
    """Layer norms of one stream, [N, D] for each pair of gain and bias; and each token's mean and inverse deviation."""
    wide = _wide(x_ND)
    statistics_N2 = torch.stack((wide.mean(-1), (wide.var(-1, correction=0) + epsilon).rsqrt()), -1)
    return [F.layer_norm(x_ND, x_ND.shape[-1:], gain, bias, epsilon) for gain, bias in affines], statistics_N2


def norms_backward(
    x_ND: Tensor, statistics_N2: Tensor, grads_ND: list[Tensor], affines: tuple[Affine, ...], onto_ND: Tensor
) -> tuple[Tensor, list[Affine]]:
    """`onto` plus the gradient that `norms` gives its input; and the gradients of gains and biases.

    More gradients than norms: the last norm's output was read more than once.
    """
    mean_N1, scale_N1 = statistics_N2[:, :1], statistics_N2[:, 1:]
    normed = (_wide(x_ND) - mean_N1) * scale_N1
    total, of_affines = _wide(onto_ND), []
    for i, (gain, bias) in enumerate(affines):
        last = i == len(affines) - 1
        grad = torch.stack([_wide(g) for g in (grads_ND[i:] if last else grads_ND[i : i + 1])]).sum(0)
        of_affines.append(((grad * normed).sum(0).to(gain.dtype), grad.sum(0).to(bias.dtype)))
        inner = grad * _wide(gain)
        mean, along = inner.mean(-1, keepdim=True), (inner * normed).mean(-1, keepdim=True)
        total = total + scale_N1 * (inner - mean - normed * along)
    return total.to(x_ND.dtype), of_affines


def activate(up_NF: Tensor, activation: Activation) -> Tensor:
    """The MLP's activation, [N, F]."""
    return _function(activation)(up_NF)


def activate_backward(up_NF: Tensor, grad_NF: Tensor, activation: Activation) -> tuple[Tensor, Tensor, Tensor]:
    """The activation once more, the gradient of what went into it (maybe in the place of `grad`), and its sums [F]."""
    with torch.enable_grad():
        up = up_NF.detach().requires_grad_()
        out = _function(activation)(up)
    (grad_up_NF,) = torch.autograd.grad(out, up, grad_NF)
    return out.detach(), grad_up_NF, column_sums(grad_up_NF)


def _function(activation: Activation) -> Callable[[Tensor], Tensor]:
    if activation == "silu":
        return F.silu
    return lambda x: F.gelu(x, approximate="tanh" if activation == "gelu_new" else "none")


def column_sums(x_NC: Tensor) -> Tensor:
    """Sums over the tokens, [C], in fp32 or fp64."""
    return x_NC.sum(0, dtype=torch.promote_types(x_NC.dtype, torch.float32))


def turn(qkv_NGK: Tensor, turns: Turns) -> Tensor:
    """Queries and keys turned to their positions, in place."""
    return turns.apply(qkv_NGK)


@dataclass
class Attended:
    """Attention as autograd keeps it: what was gathered, with the graph of attention alone behind it."""

    gathered_NHK: Tensor
    heads: list[Tensor]
    """Turned queries, keys and values, the leaves of that graph."""


def attend(qkv_NGK: Tensor, attend: Attend, layer: int, heads: tuple[int, int, int]) -> Attended:
    """Attention over turned queries, keys and values that lie side by side; `heads` are how many each of them are."""
    with torch.enable_grad():
        q_k_v = [part.detach().requires_grad_() for part in qkv_NGK.split_with_sizes(heads, 1)]
        return Attended(attend(layer, *q_k_v), q_k_v)


def attend_backward(kept: Attended, grad_NHK: Tensor, turns: Turns) -> tuple[Tensor, Tensor]:
    """Gradients of queries, keys and values before the turn, side by side [N, (H + 2 G)·K], and their sums.

    What was kept is free afterwards.
    """
    q_NHK, k_NGK, v_NGK = torch.autograd.grad(kept.gathered_NHK, kept.heads, grad_NHK)
    kept.heads.clear()
    return turn_back(q_NHK, k_NGK, v_NGK, turns)


def turn_back(q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, turns: Turns) -> tuple[Tensor, Tensor]:
    """Gradients of queries, keys and values before the turn, side by side [N, (H + 2 G)·K], and their sums."""
    side_by_side = turns.back(torch.cat((q_NHK, k_NGK, v_NGK), 1)).flatten(1)
    return side_by_side, column_sums(side_by_side)


def add(x_ND: Tensor, y_ND: Tensor, z_ND: Tensor) -> Tensor:
    """The sum of three, rounded once."""
    return (_wide(x_ND) + _wide(y_ND) + _wide(z_ND)).to(x_ND.dtype)


def cross_entropy(logits_MV: Tensor, target_M: Tensor, scale: float) -> Tensor:
    """Cross-entropy (nats) of each row, [M]; the logits become `scale` times its gradient, in place."""
    wide = _wide(logits_MV)
    log_sum_M = wide.logsumexp(-1)
    nll_M = log_sum_M - wide.gather(-1, target_M[:, None]).squeeze(-1)
    grad = wide.sub_(log_sum_M[:, None]).exp_()
    grad.scatter_add_(-1, target_M[:, None], grad.new_full((len(target_M), 1), -1.0)).mul_(scale)
    if grad is not logits_MV:
        logits_MV.copy_(grad)
    return nll_M


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
