"""The loss: cross-entropy over answer tokens, with the head applied in chunks so that a row's logits never exist."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from roslin.model.grad_mode import no_grad
from roslin.tune.passes import elementwise_for

CHUNK = 1024
"""Rows of logits that exist at one time."""
GPU_CHUNK = 8192
"""The same on a GPU, where they exist in half precision alone: nearly every update has fewer."""


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
        work = elementwise_for(hidden_MD.device)
        total = hidden_MD.new_zeros((), dtype=torch.promote_types(hidden_MD.dtype, torch.float32))
        grad_hidden = torch.empty_like(hidden_MD)
        head = _HeadGradients(ctx, taught, taught_bias, ids_K)
        chunk = GPU_CHUNK if hidden_MD.is_cuda else CHUNK
        for start in range(0, len(hidden_MD), chunk):
            h_CD = hidden_MD[start : start + chunk]
            logits_CV = F.linear(h_CD, weight_VD, bias_V)
            total += work.cross_entropy(logits_CV, target_M[start : start + chunk], scale).sum()
            torch.mm(logits_CV, weight_VD, out=grad_hidden[start : start + chunk])
            head.add(logits_CV, h_CD, more_to_come=start + chunk < len(hidden_MD))
        ctx.save_for_backward(grad_hidden, *head.gradients())
        return total * scale

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        hidden, taught, bias = (None if saved is None else saved.mul_(grad) for saved in ctx.saved_tensors)
        return hidden, taught, bias, None, None, None, None, None


class _HeadGradients:
    """The gradients of what learns of a head. Several chunks add up in fp32; one chunk has nothing to add up."""

    def __init__(self, ctx: Any, taught: Tensor, bias: Tensor | None, ids_K: Tensor | None) -> None:
        _, self._wants_taught, self._wants_bias, *_ = ctx.needs_input_grad
        self._taught, self._bias, self._ids_K = taught, bias, ids_K
        self._of_taught: Tensor | None = None
        self._of_bias: Tensor | None = None

    def add(self, grad_CV: Tensor, h_CD: Tensor, *, more_to_come: bool) -> None:
        """Add what the logits' gradients of a chunk give."""
        grad_CK = grad_CV if self._ids_K is None else grad_CV[:, self._ids_K]
        if self._wants_taught:
            self._of_taught = _added(self._of_taught, grad_CK.T @ h_CD, more_to_come)
        if self._bias is not None and self._wants_bias:
            self._of_bias = _added(self._of_bias, grad_CK.sum(0), more_to_come)

    def gradients(self) -> tuple[Tensor | None, Tensor | None]:
        """Of the rows and of the biases that learn; zeros where there was no chunk."""
        return (
            _finished(self._of_taught, self._taught) if self._wants_taught else None,
            _finished(self._of_bias, self._bias) if self._bias is not None and self._wants_bias else None,
        )


def _added(total: Tensor | None, part: Tensor, more_to_come: bool) -> Tensor:
    if total is not None:
        return total.add_(part)
    return part.to(torch.promote_types(part.dtype, torch.float32)) if more_to_come else part


def _finished(total: Tensor | None, parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if total is None else total.to(parameter.dtype)


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


@no_grad
def answer_nll(hidden_MD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, target_M: Tensor) -> Tensor:
    """Negative log-likelihood (nats, fp32) of each of M next tokens."""
    parts = [
        F.cross_entropy(F.linear(h_CD, weight_VD, bias_V).float(), target_C, reduction="none")
        for h_CD, target_C in zip(torch.split(hidden_MD, CHUNK), torch.split(target_M, CHUNK), strict=True)
    ]
    return torch.cat(parts) if parts else hidden_MD.new_empty(0, dtype=torch.float32)
