"""One tensor's AdamW step on CUDA. Imports Triton, which is not everywhere: import it where it is used."""

import torch
import triton
from torch import Tensor

from roslin.model.grad_mode import no_grad
from roslin.tune.adamw import triton_kernel as compiled
from roslin.tune.adamw.moments import BLOCK
from roslin.tune.adamw.plain import Held, Step

BLOCKS_A_PROGRAM = 16
NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


@no_grad
def step(held: Held, gradient: Tensor, factor: Tensor, told: Step) -> None:
    """What `plain.step` does, without waiting for the device."""
    moments, low, rates = held.moments, held.low, held.rate_factor
    count = held.weight.numel()
    beta1, beta2 = told.betas
    weight = held.weight.detach().view(-1)
    unused = weight
    compiled.step[(triton.cdiv(count, BLOCKS_A_PROGRAM * BLOCK),)](
        weight if low is None else weight.view(torch.int16),
        unused if low is None else low.view(-1),
        gradient.detach().reshape(-1),
        _plain_bits(moments.first),
        _plain_bits(moments.second),
        unused if moments.first_scale is None else moments.first_scale,
        unused if moments.second_scale is None else moments.second_scale,
        unused if rates is None else rates,
        factor,
        told.learning_rate,
        1 - beta1,
        beta2,
        1 - beta2,
        told.epsilon,
        told.weight_decay,
        1 / (1 - beta1**told.number),
        (1 - beta2**told.number) ** -0.5,
        told.key,
        held.first,
        count,
        count // len(held.weight),
        kind=NAMES[weight.dtype],
        bits={"fp32": 32, "bf16": 16, "8bit": 8}[moments.kind],
        rates=rates is not None,
        blocks=BLOCKS_A_PROGRAM,
        num_warps=4,
    )


def _plain_bits(moment: Tensor) -> Tensor:
    return moment.view(torch.int16) if moment.dtype == torch.bfloat16 else moment
