"""How much arithmetic the matrix products of a pass are, forward and backward."""

from torch import nn

from roslin.model import Decoder
from roslin.model.nf4_linear import Nf4Linear

FROZEN, LEARNING = 4, 6
"""Operations a number and token: two forward, two for the gradient of the input, two for its own where it learns."""


def flops_a_token(decoder: Decoder) -> int:
    """Of the blocks' matrices."""
    learning = sum(p.numel() for p in decoder.blocks.parameters() if p.dim() == 2 and p.requires_grad)
    frozen = sum(_frozen_numbers(layer) for layer in decoder.blocks.modules())
    return LEARNING * learning + FROZEN * frozen


def flops_an_answer_token(decoder: Decoder) -> int:
    """Of the head, which works on answers alone. A few rows that learn are not counted."""
    weight = decoder.head.weight
    return weight.numel() * (LEARNING if weight.requires_grad else FROZEN)


def _frozen_numbers(layer: nn.Module) -> int:
    if isinstance(layer, Nf4Linear) or (isinstance(layer, nn.Linear) and not layer.weight.requires_grad):
        return layer.in_features * layer.out_features
    return 0
