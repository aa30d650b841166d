"""What written-out blocks keep (`roslin.tune.passes`), and what lives for a moment in their backward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roslin.memory.autograd import around_blocks
from roslin.memory.layers import block_numbers
from roslin.memory.parts import ADAPTERS

if TYPE_CHECKING:
    from roslin.memory.parts import Device, Method
    from roslin.model import ModelConfig


def written_out(config: ModelConfig, method: Method, device: Device = "cuda") -> bool:
    """Whether blocks are run so: those of the parallel-residual families on a GPU, where all weights learn.

    On a CPU what is spared in memory costs more than it gives: a norm or an activation made again is no cheaper there.
    """
    if device == "cpu":
        return False
    plain = config.norm == "layer" and not config.gated_mlp and not config.qk_norm
    return config.parallel_residual and plain and method not in ADAPTERS


def activations(config: ModelConfig, size: int, tokens: int, recomputed_layers: int, *, at_once: bool) -> int:
    """Bytes that a pass of `tokens` keeps: whole blocks, and of recomputed ones the stream alone."""
    whole = (config.layers - recomputed_layers) * block_keeps(config, size, at_once=at_once)
    return tokens * (whole + recomputed_layers * size * config.width + around_blocks(config, size, None))


def block_keeps(config: ModelConfig, size: int, *, at_once: bool) -> int:
    """Bytes a token: the stream, turned queries, keys and values, what was gathered, and the MLP before activation.

    Attention keeps a normaliser a head. Runs of unlike lengths cost a copy of what was gathered unless they are
    attended to `at_once`.
    """
    copied = 0 if at_once else config.query_rows
    numbers = config.width + config.qkv_rows + config.query_rows + copied + config.inner
    return size * numbers + 4 * config.heads


def backward_workspace(config: ModelConfig, size: int, tokens: int, device: Device, gradients_apart: bool) -> int:
    """A block's fullest moment in its backward pass, beside what it kept: at its activation or at its end.

    At the activation: the gradient of the stream, norms made again, the activation's output and its gradient. The
    plain-torch twin on a CPU, by which this count is proved, has that of its input beside, and sums it up in fp32. At
    the end all gradients of its parameters are there, which counts where they stand nowhere else (`gradients_apart`);
    by then what it kept of the MLP and of attention's input is gone.
    """
    norms = 1 if config.shared_norm else 2
    inner = 2 * config.inner if device == "cuda" else (3 if size == 4 else 5) * config.inner
    at_activation = tokens * size * ((1 + norms) * config.width + inner)
    if not gradients_apart:
        return at_activation
    net = (2 + norms) * config.width - config.inner - config.qkv_rows
    return max(at_activation, tokens * size * net + size * block_numbers(config))
