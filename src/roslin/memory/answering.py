"""What answering takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from roslin.memory.layers import NF4_UNPACKING, largest_matrix, mlp_numbers, numbers_in_layer, weight_bytes
from roslin.memory.parts import Parts

if TYPE_CHECKING:
    from roslin.memory.parts import Device, Precision
    from roslin.model import ModelConfig

PROMPT_TOKENS = 4096
"""New prompts that the engine takes into one pass."""
DRAWING_BYTES = 44
"""For each row of the head while a token is drawn, at worst: from a nucleus as wide as the vocabulary."""


@dataclass(frozen=True)
class Answering(Parts):
    """Bytes that answering takes."""

    weights: int
    keys_and_values: int
    workspace: int
    """What lives for a moment: prompts on their way through a layer, logits, a matrix unpacked from nf4."""


def answering(
    config: ModelConfig, precision: Precision, positions: int, batch: int, device: Device = "cuda"
) -> Answering:
    """What `batch` answers at once take, each of up to `positions` tokens with its prompt."""
    key_bytes = 4 if device == "cpu" or precision == "fp32" else 2  # a CPU keeps them in fp32 whatever the weights
    return Answering(
        weights=weight_bytes(config, precision),
        keys_and_values=2 * config.layers * config.key_rows * batch * positions * key_bytes,
        workspace=_workspace(config, precision, positions, batch, device),
    )


def _workspace(config: ModelConfig, precision: Precision, positions: int, batch: int, device: Device) -> int:
    size = 4 if precision == "fp32" else 2
    tokens = max(positions, min(PROMPT_TOKENS, batch * positions))
    prompts = tokens * size * (_numbers_in_fused_layer(config) if device == "cpu" else numbers_in_layer(config))
    drawing = batch * config.vocab_rows * DRAWING_BYTES
    return max(prompts, drawing) + (NF4_UNPACKING * largest_matrix(config) if precision == "nf4" else 0)


def _numbers_in_fused_layer(config: ModelConfig) -> int:
    """A token's numbers on a CPU, where attention and MLP share their matrices if they stand beside each other."""
    if not config.parallel_residual:
        return 2 * config.width + mlp_numbers(config)
    return config.width + config.qkv_rows + config.up_rows + 2 * (config.query_rows + config.inner)
