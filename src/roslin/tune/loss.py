"""The loss: cross-entropy over answer tokens, with the head applied in chunks so that a row's logits never exist."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 1024
"""Rows of logits that exist at one time."""


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies times a scale. Gradients are made beside the loss, so no logits wait for backward."""

    @staticmethod
    def forward(
        ctx: Any, hidden_MD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, target_M: Tensor, scale: float
    ) -> Tensor:
        total = hidden_MD.new_zeros((), dtype=torch.float32)
        grad_hidden = torch.empty_like(hidden_MD)
        # Several chunks add up in fp32; one chunk has nothing to add up.
        exact = torch.float32 if len(hidden_MD) > CHUNK and weight_VD.dtype != torch.float64 else weight_VD.dtype
        grad_weight = torch.zeros_like(weight_VD, dtype=exact)
        grad_bias = None if bias_V is None else torch.zeros_like(bias_V)
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
            grad_weight += grad_CV.T @ h_CD
            if grad_bias is not None:
                grad_bias += grad_CV.sum(0)
        ctx.save_for_backward(grad_hidden, grad_weight.to(weight_VD.dtype), grad_bias)
        return total * scale

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        hidden, weight, bias = ctx.saved_tensors
        return hidden * grad, weight * grad, None if bias is None else bias * grad, None, None


def answer_loss(hidden_MD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, target_M: Tensor, scale: float) -> Tensor:
    """`scale` times the summed cross-entropy (nats, fp32) of M next tokens, given their final hidden states.

    With scale = 1 / (answer tokens of the whole update), losses and gradients of its rows simply add up.
    """
    return _ChunkedCrossEntropy.apply(hidden_MD, weight_VD, bias_V, target_M, scale)  # type: ignore[no-untyped-call,no-any-return]


@torch.no_grad()
def answer_nll(hidden_MD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, target_M: Tensor) -> Tensor:
    """Negative log-likelihood (nats, fp32) of each of M next tokens."""
    parts = [
        F.cross_entropy(F.linear(h_CD, weight_VD, bias_V).float(), target_C, reduction="none")
        for h_CD, target_C in zip(torch.split(hidden_MD, CHUNK), torch.split(target_M, CHUNK), strict=True)
    ]
    return torch.cat(parts) if parts else hidden_MD.new_empty(0, dtype=torch.float32)
