"""What torch's own autograd keeps of plain blocks, and what lives for a moment beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roslin.memory.layers import (
    NF4_UNPACKING,
    adapter_count,
    largest_matrix,
    matrices,
    mlp_numbers,
)
from roslin.memory.parts import ADAPTERS

if TYPE_CHECKING:
    from roslin.memory.parts import Device, Method
    from roslin.model import ModelConfig


def activations(
    config: ModelConfig,
    size: int,
    tokens: int,
    device: Device,
    recomputed_layers: int = 0,
    rank: int = 0,
    *,
    at_once: bool,
) -> int:
    """Bytes that a pass of `tokens` keeps for its backward pass: of recomputed layers what goes in alone.

    `size` is the bytes of a number; `rank` is that of adapters, 0 where all weights learn.
    """
    whole = (config.layers - recomputed_layers) * block_keeps(config, size, device, rank, at_once=at_once)
    around = around_blocks(config, size, _rms_bytes(rank, device))
    rounded_adapters = size * adapter_count(config, rank) if size < 4 else 0
    return tokens * (whole + recomputed_layers * size * config.width + around) + rounded_adapters


def block_keeps(config: ModelConfig, size: int, device: Device, rank: int = 0, *, at_once: bool) -> int:
    """Bytes a token that one block keeps."""
    rms_bytes = _rms_bytes(rank, device)
    kept = _norms_keep(config, size, rms_bytes) + _attention_keeps(config, size, rms_bytes, at_once=at_once)
    kept += size * mlp_numbers(config)
    if rank:
        kept += size * rank * len(matrices(config)) + _dropout_keeps(config, size, device)
    return kept


def around_blocks(config: ModelConfig, size: int, rms_bytes: int | None) -> int:
    """Bytes a token outside the blocks: rotary tables, what the final norm keeps, ids and positions."""
    a_number = rms_bytes if config.norm == "rms" and rms_bytes is not None else size
    return 2 * size * config.rotary_dims + a_number * config.width + 16


def _rms_bytes(rank: int, device: Device) -> int | None:
    """Bytes that an RMSNorm keeps of a number, where torch makes it of several steps in fp32, as on a CPU.

    It keeps what goes in and, to learn, what is normed.
    """
    return None if device == "cuda" else 4 if rank else 8


def backward_workspace(config: ModelConfig, method: Method, size: int, tokens: int) -> int:
    """A layer's gradients at its MLP, and one matrix's: its gradient, or itself unpacked.

    Where the MLP is gated its gradients are widest when no matrix has one yet.
    """
    matrix = {"lora": 0, "qlora": NF4_UNPACKING}.get(method, size) * largest_matrix(config)
    if config.gated_mlp and method not in ADAPTERS:
        return max(tokens * size * config.up_rows, matrix)
    return tokens * size * (config.width + config.up_rows) + matrix


def _norms_keep(config: ModelConfig, size: int, rms_bytes: int | None) -> int:
    """A layer's norms: their inputs and outputs, and per token a mean and a deviation."""
    norms = 1 if config.shared_norm else 2
    outputs = norms * size * config.width
    if config.norm == "rms" and rms_bytes is not None:
        return outputs + norms * (rms_bytes * config.width + 4)
    inputs = 1 if config.parallel_residual else 2
    return outputs + inputs * size * config.width + norms * 8


def _attention_keeps(config: ModelConfig, size: int, rms_bytes: int | None, *, at_once: bool) -> int:
    """Turned queries, keys and values, what was gathered, and its normalisers; with norms of heads, what goes in.

    Runs of unlike lengths cost a copy of what was gathered unless they are attended to `at_once`.
    """
    copied = 0 if at_once else config.query_rows
    kept = size * (config.qkv_rows + config.query_rows + copied) + 4 * config.heads
    if not config.qk_norm:
        return kept
    turning = config.query_rows + config.key_rows
    normed = size * config.qkv_rows if rms_bytes is None else rms_bytes * turning
    return kept + normed + 4 * (config.heads + config.kv_heads)


def _dropout_keeps(config: ModelConfig, size: int, device: Device) -> int:
    """Adapters read copies of which some numbers were dropped: these are kept, and which were, instead of the whole."""
    read = 2 * config.width + config.query_rows + config.inner
    spared = (1 if config.shared_norm else 2) * config.width + config.inner
    if device == "cpu":
        return size * (read - spared - config.query_rows) + size * read
    return size * (read - spared) + read
