"""The loss: cross-entropy over answer tokens, with the head applied in chunks so that a row's logits never exist."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 1024
"""Rows of logits that exist at one time."""


@dataclass(frozen=True)
class TaughtRows:
    """The rows of a head that learn, where the others do not: the tokens' ids, their rows and their biases, if any."""

    ids_K: Tensor
    rows_KD: Tensor
    biases_K: Tensor | None


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies times a scale. Gradients are made beside the loss, so no logits wait for backward.

    `taught` and `taught_bias` are what gets gradients of the head: all of it where `ids_K` is None, else those rows.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_MD: Tensor,
        taught: Tensor,
        taught_bias: Tensor | None,
        ids_K: Tensor | None,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        target_M: Tensor,
        scale: float,
    ) -> Tensor:
        total = hidden_MD.new_zeros((), dtype=torch.float32)
        grad_hidden = torch.empty_like(hidden_MD)
        grad_taught, grad_bias = _sums(ctx, hidden_MD, taught, taught_bias)
        for start in range(0, len(hidden_MD), CHUNK):
            rows = slice(start, start + CHUNK)
            h_CD, target_C = hidden_MD[rows], target_M[rows]
            logits_CV = F.linear(h_CD, weight_VD, bias_V).float()
            log_sum_C = logits_CV.logsumexp(-1)
            total += (log_sum_C - logits_CV.gather(-1, target_C[:, None]).squeeze(-1)).sum()
            grad_CV = logits_CV.sub_(log_sum_C[:, None]).exp_()
            grad_CV.scatter_add_(-1, target_C[:, None], grad_CV.new_full((len(target_C), 1), -1.0))
            grad_CV = grad_CV.mul_(scale).to(h_CD.dtype)
            grad_hidden[rows] = grad_CV @ weight_VD
            grad_CK = grad_CV if ids_K is None else grad_CV[:, ids_K]
            if grad_taught is not None:
                grad_taught += grad_CK.T @ h_CD
            if grad_bias is not None:
                grad_bias += grad_CK.sum(0)
        ctx.save_for_backward(grad_hidden, None if grad_taught is None else grad_taught.to(taught.dtype), grad_bias)
        return total * scale

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        hidden, taught, bias = (None if saved is None else saved * grad for saved in ctx.saved_tensors)
        return hidden, taught, bias, None, None, None, None, None


def _sums(ctx: Any, hidden_MD: Tensor, taught: Tensor, bias: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Zeros for the gradients that are asked for. Several chunks add up in fp32; one chunk has nothing to add up."""
    _, wants_taught, wants_bias, *_ = ctx.needs_input_grad
    exact = torch.float32 if len(hidden_MD) > CHUNK and taught.dtype != torch.float64 else taught.dtype
    grad_taught = torch.zeros_like(taught, dtype=exact) if wants_taught else None
    return grad_taught, torch.zeros_like(bias) if bias is not None and wants_bias else None


def answer_loss(
    hidden_MD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    target_M: Tensor,
    scale: float,
    taught: TaughtRows | None = None,
) -> Tensor:
    """`scale` times the summed cross-entropy (nats, fp32) of M next tokens, given their final hidden states.

    With scale = 1 / (answer tokens of the whole update), losses and gradients of its rows simply add up. Gradients go
    to weight and bias where these ask for them, or to `taught`, whose values are among the weight's already.
    """
    head = (weight_VD, bias_V, None) if taught is None else (taught.rows_KD, taught.biases_K, taught.ids_K)
    bias = None if bias_V is None else bias_V.detach()
    return _ChunkedCrossEntropy.apply(hidden_MD, *head, weight_VD.detach(), bias, target_M, scale)  # type: ignore[no-untyped-call,no-any-return]


@torch.no_grad()
def answer_nll(hidden_MD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, target_M: Tensor) -> Tensor:
    """Negative log-likelihood (nats, fp32) of each of M next tokens."""
    parts = [
        F.cross_entropy(F.linear(h_CD, weight_VD, bias_V).float(), target_C, reduction="none")
        for h_CD, target_C in zip(torch.split(hidden_MD, CHUNK), torch.split(target_M, CHUNK), strict=True)
    ]
    return torch.cat(parts) if parts else hidden_MD.new_empty(0, dtype=torch.float32)
