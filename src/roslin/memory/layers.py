"""What a configuration's layers are made of, counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roslin.model.families import FAMILIES

if TYPE_CHECKING:
    from roslin.memory.parts import Precision
    from roslin.model import ModelConfig

RANK = 16
"""Of the adapters on every matrix of every layer."""
NF4_BLOCK = 64
"""Numbers that share one fp32 magnitude."""
NF4_UNPACKING = 6
"""Bytes a number while a matrix is unpacked: itself in fp32, and codes as indices or the half-precision copy."""

WEIGHT_BYTES = {"fp32": 4, "bf16": 2}


def adapter_count(config: ModelConfig, rank: int = RANK) -> int:
    """Parameters of adapters of this rank on every matrix that a file has in a layer."""
    return config.layers * rank * sum(rows + columns for rows, columns in matrices(config))


def matrices(config: ModelConfig) -> list[tuple[int, int]]:
    """Rows and columns of one layer's matrices as files have them: queries, keys and values may be one or three."""
    shapes = {
        "qkv": (config.qkv_rows, config.width),
        "out": (config.width, config.query_rows),
        "up": (config.up_rows, config.width),
        "down": (config.width, config.inner),
    }
    block = FAMILIES[config.family].block
    return [
        (part, columns)
        for name, (rows, columns) in shapes.items()
        for part in block[f"{name}.weight"].rows(config, rows)
    ]


def block_numbers(config: ModelConfig) -> int:
    """Numbers in the matrices of one layer."""
    return sum(rows * columns for rows, columns in matrices(config))


def token_rows(config: ModelConfig) -> int:
    """Numbers in the embedding and the head; a tied head is the embedding."""
    return config.vocab_rows * config.width * (1 if config.tied_head else 2)


def weight_bytes(config: ModelConfig, precision: Precision, beside_nf4: int = 2) -> int:
    """Bytes of all weights. Those that are not in nf4 beside weights that are take `beside_nf4` bytes a number."""
    if precision != "nf4":
        return config.parameter_count * WEIGHT_BYTES[precision]
    packed = config.layers * block_numbers(config)
    return packed // 2 + packed // NF4_BLOCK * 4 + beside_nf4 * (config.parameter_count - packed)


def largest_matrix(config: ModelConfig) -> int:
    """Numbers in a layer's largest matrix."""
    return max(config.qkv_rows, config.up_rows, config.inner) * config.width


def numbers_in_layer(config: ModelConfig) -> int:
    """A token's numbers while its MLP is computed: the stream twice, norms, what attention gave, and the MLP's."""
    return (4 if config.shared_norm else 5) * config.width + mlp_numbers(config)


def mlp_numbers(config: ModelConfig) -> int:
    """A token's numbers between the MLP's matrices, before and after the activation; a gate makes two more."""
    return config.up_rows + config.inner * (2 if config.gated_mlp else 1)
