"""What answering takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from roslin.memory.layers import largest_matrix, mlp_numbers, numbers_in_layer, weight_bytes
from roslin.memory.parts import Parts

if TYPE_CHECKING:
    from roslin.memory.parts import Device, Precision
    from roslin.model import ModelConfig

Kept = Literal["auto", "fp8"]
"""What keys and values are kept in to answer; auto: as they are computed."""

PROMPT_TOKENS = 4096
"""New prompts that the engine takes into one pass."""
BLOCK_TOKENS = 16
"""Tokens of a block of the engine's cache."""
DRAFTED = 15
"""Answers at once that a draft model guesses for, at most: beside more there are no guesses."""
USABLE = 0.94
"""Share of a device's memory that is planned with: the driver's context, gaps between tensors, and what the prediction
may be wrong by take the rest."""
CPU_SHARE = 0.5
"""Share of a computer's free memory that the engine's cache may grow to: the rest is for others."""
DRAWING_BYTES = 44
"""For each row of the head while a token is drawn, at worst: from a nucleus as wide as the vocabulary. A CPU's
kernel for it takes less than anything else does."""
GATHERED_BYTES = 9
"""For each number of all tokens' keys in a layer, of a cache in fp8 on a CPU: keys and values are gathered there in
fp32, and the values before that as they are kept."""


@dataclass(frozen=True)
class Answering(Parts):
    """Bytes that answering takes."""

    weights: int
    keys_and_values: int
    workspace: int
    """What lives for a moment: prompts on their way through a layer, logits, a matrix unpacked from few bits for many
    tokens on a GPU."""
    draft_weights: int = 0
    draft_keys_and_values: int = 0


def answering(
    config: ModelConfig,
    precision: Precision,
    positions: int,
    batch: int,
    device: Device = "cuda",
    processes: int = 1,
    *,
    draft: ModelConfig | None = None,
    cache: Kept = "auto",
) -> Answering:
    """What `batch` answers at once take, each of up to `positions` tokens with its prompt.

    Of several `processes` that hold the model together, what the fullest takes: the first, which has all of a `draft`
    model and its cache. This is of the same precision, or bf16 beside fewer bits. Raises UsageError where they cannot
    share the model.
    """
    share = config.shared(processes)
    size = 4 if precision == "fp32" else 2
    between = 4 if device == "cpu" else size  # a CPU computes in fp32 between the products, whatever the weights are
    unpacking = 2 * largest_matrix(share) if precision in ("int8", "int4") and device == "cuda" else 0
    drawing = replace(share, vocab_rows=config.vocab_rows)  # one of them draws, from the whole vocabulary
    kept = 1 if cache == "fp8" else size
    tokens = batch * _whole_blocks(positions)
    return Answering(
        weights=weight_bytes(share, precision),
        keys_and_values=token_bytes(share, kept) * tokens,
        workspace=_workspace(drawing, between, positions, batch, device, kept) + unpacking,
        draft_weights=weight_bytes(draft, "fp32" if precision == "fp32" else "bf16") if draft else 0,
        draft_keys_and_values=token_bytes(draft, size) * min(batch, DRAFTED) * _whole_blocks(positions) if draft else 0,
    )


def token_bytes(config: ModelConfig, size: int) -> int:
    """What one token's keys and values take, in numbers of `size` bytes."""
    return 2 * config.layers * config.key_rows * size


def cache_tokens(
    config: ModelConfig,
    size: int,
    batch: int,
    free: int,
    memory: int,
    device: Device,
    *,
    kept: int | None = None,
    beside: int = 0,
) -> int:
    """How many tokens' keys and values the engine keeps at most: whole blocks, and no more than it can ever need.

    That is `batch` requests of all positions. `free` bytes are left beside the weights, which are of `size` bytes, of
    a device that has `memory` in all. Keys and values are of `kept` bytes (None: the same). `beside`: what a draft
    model's cache takes for each token of as many requests as it guesses for.
    """
    share = free * CPU_SHARE if device == "cpu" else free - (1 - USABLE) * memory
    kept = kept or size
    room = share - _workspace(config, size, config.positions, batch, device, kept)
    full, drafted = (count * _whole_blocks(config.positions) for count in (batch, min(batch, DRAFTED)))
    each = token_bytes(config, kept)
    tokens = max(room / (each + beside), (room - drafted * beside) / each)
    return min(full, max(0, int(tokens / BLOCK_TOKENS)) * BLOCK_TOKENS)


def _whole_blocks(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS) * BLOCK_TOKENS


def _workspace(config: ModelConfig, size: int, positions: int, batch: int, device: Device, kept: int) -> int:
    tokens = min(PROMPT_TOKENS, batch * positions)
    prompts = tokens * size * (_numbers_in_fused_layer(config) if device == "cpu" else numbers_in_layer(config))
    if positions > PROMPT_TOKENS:
        # What comes in several passes reads what is before it in one piece, by a mask that torch makes numbers of.
        prompts += 2 * positions * config.key_rows * size + PROMPT_TOKENS * positions * (1 + size)
    gathered = GATHERED_BYTES * batch * positions * config.key_rows if device == "cpu" and kept == 1 else 0
    return max(prompts, batch * config.vocab_rows * DRAWING_BYTES, gathered)


def _numbers_in_fused_layer(config: ModelConfig) -> int:
    """A token's numbers on a CPU, where attention and MLP share their matrices if they stand beside each other."""
    if not config.parallel_residual:
        return 2 * config.width + mlp_numbers(config)
    return config.width + config.qkv_rows + config.up_rows + 2 * (config.query_rows + config.inner)
