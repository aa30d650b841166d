"""One tensor's AdamW step in plain torch, a piece at a time: fp32 copies exist of one piece only."""

from dataclasses import dataclass

import torch
from torch import Tensor

from roslin.model.grad_mode import no_grad
from roslin.tune.adamw.moments import Moments
from roslin.tune.adamw.noise import bits_of
from roslin.tune.adamw.split import join, split_into

PIECE = 1 << 20
"""Numbers of a piece, unless a row has more: temporaries stay small, and threads need not meet too often."""


@dataclass(frozen=True)
class Held:
    """What AdamW holds of one tensor: its weight and all that is behind it, changed in place by a step."""

    weight: Tensor
    """fp32; or bf16 or fp16, the high half of the exact weight."""
    low: Tensor | None
    """int16, the low half beneath a weight in 16 bits."""
    moments: Moments
    rate_factor: Tensor | None = None
    """fp32, by which multiple of the learning rate each row learns, where rows differ."""
    first: int = 0
    """The number of this tensor's first element in the whole parameter that it may be a part of."""


@dataclass(frozen=True)
class Step:
    """What one step of a tensor is told."""

    learning_rate: float
    betas: tuple[float, float]
    epsilon: float
    weight_decay: float
    number: int
    """1 for the tensor's first step."""
    key: int
    """Of the random bits, see `noise`."""


@no_grad
def step(held: Held, gradient: Tensor, factor: Tensor, told: Step) -> None:
    """torch's AdamW (decoupled decay, bias correction) on `gradient * factor`; nothing changes if `factor` is NaN."""
    if not torch.isfinite(factor):
        return
    weight_RC, gradient_RC = (tensor.detach().view(len(tensor), -1) for tensor in (held.weight, gradient))
    rows, columns = weight_RC.shape
    height = max(1, PIECE // columns)
    for start in range(0, rows, height):
        piece = slice(start, min(start + height, rows))
        low_RC = None if held.low is None else held.low.view(rows, columns)[piece]
        rates_R = None if held.rate_factor is None else held.rate_factor[piece]
        moments = held.moments.rows(piece.start, piece.stop)
        bits = None
        if moments.kind != "fp32":
            count = moments.first.numel()
            bits = bits_of(told.key, held.first + start * columns, count, weight_RC.device)
        exact_RC = weight_RC[piece] if low_RC is None else join(weight_RC[piece], low_RC)
        _step_of_piece(exact_RC, gradient_RC[piece].float() * factor, moments, bits, rates_R, told)
        if low_RC is not None:
            split_into(exact_RC, weight_RC[piece], low_RC)


def _step_of_piece(
    exact_RC: Tensor, gradient_RC: Tensor, moments: Moments, bits: Tensor | None, rates_R: Tensor | None, told: Step
) -> None:
    before_RC = None if rates_R is None else exact_RC.clone()
    first_RC, second_RC = moments.read()
    torch._fused_adamw_(
        [exact_RC],
        [gradient_RC],
        [first_RC],
        [second_RC],
        [],
        [torch.tensor(float(told.number), device=exact_RC.device)],
        lr=told.learning_rate,
        beta1=told.betas[0],
        beta2=told.betas[1],
        weight_decay=told.weight_decay,
        eps=told.epsilon,
        amsgrad=False,
        maximize=False,
    )
    if before_RC is not None and rates_R is not None:  # a step is proportional to its learning rate
        torch.lerp(before_RC, exact_RC, rates_R[:, None], out=exact_RC)
    if moments.kind != "fp32":
        moments.write(first_RC, second_RC, bits)
