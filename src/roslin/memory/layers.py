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

INT4_GROUP = 64
"""Numbers that share a scale and a shift, as `roslin quantize` cuts them by itself."""

WEIGHT_BYTES: dict[Precision, int] = {"fp32": 4, "bf16": 2}


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


def weight_bytes(config: ModelConfig, precision: Precision) -> int:
    """Bytes of all weights, to answer with them."""
    if precision in WEIGHT_BYTES:
        return config.parameter_count * WEIGHT_BYTES[precision]
    layer = sum(_quantised_bytes(rows, columns, precision) for rows, columns in matrices(config))
    tables = 1 if config.tied_head else 2
    plain = config.parameter_count - config.layers * block_numbers(config) - token_rows(config)
    tokens = tables * _quantised_bytes(config.vocab_rows, config.width, "int8")
    return config.layers * layer + tokens + WEIGHT_BYTES["bf16"] * plain


def _quantised_bytes(rows: int, columns: int, precision: Precision) -> int:
    """Codes, and an fp32 scale for each row in 8 bits or an fp16 scale and shift for each group in 4."""
    if precision == "int8":
        return rows * (columns + 4)
    return rows * (-(-columns // 2) + 4 * -(-columns // INT4_GROUP))


def nf4_bytes(config: ModelConfig, beside: int = 2) -> int:
    """Bytes of all weights with the layers' matrices in nf4; the others take `beside` bytes a number."""
    packed = config.layers * block_numbers(config)
    return packed // 2 + packed // NF4_BLOCK * 4 + beside * (config.parameter_count - packed)


def largest_matrix(config: ModelConfig) -> int:
    """Numbers in a layer's largest matrix."""
    return max(config.qkv_rows, config.up_rows, config.inner) * config.width


def numbers_in_layer(config: ModelConfig) -> int:
    """A token's numbers while its MLP is computed: the stream twice, norms, what attention gave, and the MLP's."""
    return (4 if config.shared_norm else 5) * config.width + mlp_numbers(config)


def mlp_numbers(config: ModelConfig) -> int:
    """A token's numbers between the MLP's matrices, before and after the activation; a gate makes two more."""
    return config.up_rows + config.inner * (2 if config.gated_mlp else 1)
