"""How fast a model is tuned: its arithmetic over what products reach, and its bytes over what memory reaches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from roslin.memory.gpus import COPY_REACH
from roslin.memory.layers import adapter_count, block_numbers
from roslin.memory.parts import ADAPTERS, IN_HALVES
from roslin.memory.passes import written_out
from roslin.memory.tuning import Settings, pass_bytes

if TYPE_CHECKING:
    from roslin.memory.gpus import Gpu
    from roslin.memory.parts import Method
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
FP8_GAIN = 1.55
"""How much faster products in fp8 are than in bf16, with the quantising that they need; fitted to runs."""

LINK_REACH = 0.7
"""Share of a link's bandwidth between GPUs that gathering weights reaches; assumed."""
OFFLOAD_LINK = 25e9
"""Bytes a second between a GPU and the CPU's memory, which its other GPUs use too; assumed."""

_UPDATE_BYTES = {"fp32": 32, "bf16": 24, "8bit": 20}
"""Bytes a parameter that the optimizer's time is worth: weight, low half, moments in and out, and the gradient twice,
and 6 more by which it is slower than a copy, measured with 8-bit moments."""


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
    gpus: int = 1,
    fp8: bool = False,
) -> float:
    """How long an average update takes on each of the GPUs that share it."""
    passes = work.passes(tokens_per_pass * gpus)
    tokens = work.mean_update / gpus + passes * PASS_TOKENS
    peak = gpu.fp32_flops if pass_bytes(method, settings) == 4 else gpu.flops
    reached = peak * gpu.reach
    products = _block_flops(config, method, settings) * tokens / (reached * (FP8_GAIN if fp8 else 1))
    head = _head_flops(config, method) * tokens * work.answer_share / reached
    attention = _attention_flops(config, settings, work.attended) * tokens / (peak * ATTENTION_REACH)
    moved = _elementwise_bytes(config, method, settings) * tokens + _weight_traffic(config, method, settings, passes)
    on_device = products + head + attention + moved / (gpu.bandwidth * COPY_REACH)
    crossing = _crossing_bytes(config, method, settings, passes) / (gpu.link * LINK_REACH)
    offloaded = _offloaded_bytes(config, method, settings, passes) / OFFLOAD_LINK
    return max(on_device, crossing) + offloaded


def _block_flops(config: ModelConfig, method: Method, settings: Settings) -> float:
    """A token's, of the blocks' matrices; a recomputed block leaves out the products whose results nobody needs."""
    each = block_numbers(config)
    if method in ADAPTERS:
        frozen = each * (FROZEN * config.layers + FORWARD * settings.recomputed_layers)
        return frozen + LEARNING * adapter_count(config, settings.rank)
    spared = config.width * (config.query_rows + config.inner) if written_out(config, method) else 0
    return LEARNING * each * config.layers + FORWARD * (each - spared) * settings.recomputed_layers


def _head_flops(config: ModelConfig, method: Method) -> float:
    return config.vocab_rows * config.width * (FROZEN if method in ADAPTERS else LEARNING)


def _attention_flops(config: ModelConfig, settings: Settings, attended: float) -> float:
    """A token's: two products forward and five backward with half of what it could see."""
    forward = 2 * attended * config.query_rows
    return forward * (3.5 * config.layers + settings.recomputed_layers)


def _elementwise_bytes(config: ModelConfig, method: Method, settings: Settings) -> float:
    size = pass_bytes(method, settings)
    if not written_out(config, method):
        again = ELEMENTWISE_PLAIN / 3 * settings.recomputed_layers
        return size * config.width * (ELEMENTWISE_PLAIN * config.layers + again)
    return size * config.width * (ELEMENTWISE * config.layers + ELEMENTWISE_AGAIN * settings.recomputed_layers)


def _weight_traffic(config: ModelConfig, method: Method, settings: Settings, passes: float) -> float:
    """Bytes an update: the optimizer's, and those of gradients that are added up over passes."""
    if method in ADAPTERS:
        return 36 * adapter_count(config, settings.rank)
    added = passes * 10 if settings.gradients == "fp32" and method in IN_HALVES else (passes - 1) * 4
    return config.parameter_count * (_UPDATE_BYTES[settings.moments] + added) / settings.shards


def _crossing_bytes(config: ModelConfig, method: Method, settings: Settings, passes: float) -> float:
    """Bytes an update that each GPU receives: weights forward and backward, gradients in fp32."""
    size = pass_bytes(method, settings)
    return passes * (2 * size + 4) * config.parameter_count * (settings.shards - 1) / settings.shards


def _offloaded_bytes(config: ModelConfig, method: Method, settings: Settings, passes: float) -> float:
    """Bytes an update between a GPU and the CPU's memory: weights forward and backward, gradients, and the update's."""
    if not settings.offload:
        return 0
    size = pass_bytes(method, settings)
    return config.parameter_count * (passes * 3 * size + _UPDATE_BYTES[settings.moments]) / settings.shards
