"""How fast a model is tuned: its arithmetic over what products reach, and its bytes over what memory reaches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from roslin.memory.gpus import COPY_REACH
from roslin.memory.layers import adapter_count, block_numbers
from roslin.memory.passes import written_out

if TYPE_CHECKING:
    from roslin.memory.gpus import Gpu
    from roslin.memory.parts import Method
    from roslin.memory.tuning import Settings
    from roslin.model import ModelConfig

LEARNING, FROZEN, FORWARD = 6, 4, 2
"""Operations a number and token: forward, for the gradient of the input, for its own where it learns."""
ATTENTION_REACH = 0.4
"""Share of the peak that attention's kernels reach on runs as short as records; assumed."""
ELEMENTWISE = 58
"""Numbers that a written-out block reads and writes outside its products, a token, as multiples of the width.
Counted: norms, turns, activation and sums, forward and backward."""
ELEMENTWISE_AGAIN = 20
"""Of those, what a recomputed block does a second time."""
ELEMENTWISE_PLAIN = 110
"""The same of a plain block that torch's autograd runs operation by operation."""
PASS_TOKENS = 200
"""What each pass costs beyond its tokens, as tokens: launches, and products whose last tiles are not full; assumed."""
FP8_GAIN = 1.6
"""How much faster products in fp8 are than in bf16, with the quantising that they need; assumed."""

_UPDATE_BYTES = {"fp32": 26, "bf16": 18, "8bit": 14}
"""Bytes a parameter that the optimizer moves: weight, low half, moments in and out, and the gradient twice."""


@dataclass(frozen=True)
class Work:
    """What of a run's records decides memory and speed."""

    longest_update: int
    """Tokens of the longest update."""
    mean_update: float
    """Tokens of an update on average."""
    row_length: int = 2048
    answer_share: float = 0.42
    """Share of the tokens that are answers'; dolly-15k's."""
    attended: float = 408.0
    """Tokens of the record that a token of it stands in, on average; dolly-15k's."""

    def passes(self, tokens_per_pass: int) -> float:
        """How many passes an update has, on average."""
        if tokens_per_pass >= self.longest_update:
            return 1.0
        return max(1.0, self.mean_update / tokens_per_pass + 0.5)


def update_seconds(
    config: ModelConfig,
    method: Method,
    settings: Settings,
    work: Work,
    tokens_per_pass: int,
    gpu: Gpu,
    *,
    fp8: bool = False,
) -> float:
    """How long an average update takes on each of the GPUs that share it."""
    passes = work.passes(tokens_per_pass)
    tokens = work.mean_update / settings.shards + passes * PASS_TOKENS
    reached = gpu.flops * gpu.reach
    products = _block_flops(config, method, settings) * tokens / (reached * (FP8_GAIN if fp8 else 1))
    head = _head_flops(config, method) * tokens * work.answer_share / reached
    attention = _attention_flops(config, settings, work.attended) * tokens / (gpu.flops * ATTENTION_REACH)
    moved = _elementwise_bytes(config, method, settings) * tokens + _weight_traffic(config, method, settings, passes)
    return products + head + attention + moved / (gpu.bandwidth * COPY_REACH)


def _block_flops(config: ModelConfig, method: Method, settings: Settings) -> float:
    """A token's, of the blocks' matrices; a recomputed block leaves out the products whose results nobody needs."""
    each = block_numbers(config)
    if method in ("lora", "qlora"):
        return each * (FROZEN * config.layers + FORWARD * settings.recomputed_layers) + LEARNING * adapter_count(config)
    spared = config.width * (config.query_rows + config.inner) if written_out(config, method) else 0
    return LEARNING * each * config.layers + FORWARD * (each - spared) * settings.recomputed_layers


def _head_flops(config: ModelConfig, method: Method) -> float:
    return config.vocab_rows * config.width * (FROZEN if method in ("lora", "qlora") else LEARNING)


def _attention_flops(config: ModelConfig, settings: Settings, attended: float) -> float:
    """A token's: two products forward and five backward with half of what it could see."""
    forward = 2 * attended * config.query_rows
    return forward * (3.5 * config.layers + settings.recomputed_layers)


def _elementwise_bytes(config: ModelConfig, method: Method, settings: Settings) -> float:
    size = 4 if method == "fp32" else 2
    if not written_out(config, method):
        again = ELEMENTWISE_PLAIN / 3 * settings.recomputed_layers
        return size * config.width * (ELEMENTWISE_PLAIN * config.layers + again)
    return size * config.width * (ELEMENTWISE * config.layers + ELEMENTWISE_AGAIN * settings.recomputed_layers)


def _weight_traffic(config: ModelConfig, method: Method, settings: Settings, passes: float) -> float:
    """Bytes an update: the optimizer's, and those of gradients that are added up over passes."""
    if method in ("lora", "qlora"):
        return 36 * adapter_count(config)
    added = passes * 10 if settings.gradients == "fp32" and method == "bf16" else (passes - 1) * 4
    return config.parameter_count * (_UPDATE_BYTES[settings.moments] + added) / settings.shards
