"""What tuning takes, for a model, a method and settings, at the fullest moment of an update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from roslin.memory import autograd, passes
from roslin.memory.layers import RANK, adapter_count, block_numbers, matrices, nf4_bytes, token_rows
from roslin.memory.parts import ADAPTERS, IN_HALVES, Parts

if TYPE_CHECKING:
    from roslin.memory.parts import Device, Method, PassPrecision
    from roslin.model import ModelConfig

Moments = Literal["fp32", "bf16", "8bit"]
"""What AdamW's two moments are kept in."""
Gradients = Literal["fp32", "bf16", "fp16"]
"""What the gradients of an update's passes are added up in, where weights are in 16 bits: in fp32 or in those."""

LOSS_CHUNK, GPU_LOSS_CHUNK = 1024, 8192
"""Answer tokens whose logits exist at one time, on a CPU and on a GPU."""
MOMENT_BLOCK = 128
"""Numbers of an 8-bit moment that share one fp32 scale; matrices whose rows are no multiple keep fp32 moments."""

_MOMENT_BYTES = {"fp32": 4, "bf16": 2}


@dataclass(frozen=True)
class Settings:
    """What of memory a recipe can choose."""

    moments: Moments = "fp32"
    gradients: Gradients = "fp32"
    in_backward: bool = False
    """The optimizer is applied while the backward pass runs, and gradients are dropped as they come."""
    recomputed_layers: int = 0
    """Layers that keep their input alone and run again in the backward pass."""
    one_pass: bool = False
    """Whether every update is one pass: no gradients are there before its backward pass then."""
    shards: int = 1
    """Over how many GPUs weights, gradients and moments are spread."""
    offload: bool = False
    """Weights, gradients and moments lie in the CPU's memory."""
    rank: int = RANK
    """Of adapters."""
    adapters_beside: PassPrecision = "bf16"
    """What passes are in where weights are frozen."""


@dataclass(frozen=True)
class Tuning(Parts):
    """Bytes that tuning takes on one device."""

    weights: int
    """Those that passes are computed with, adapters among them."""
    masters: int
    """What fp32 weights have beyond those in 16 bits: their low halves."""
    gradients: int
    """Of an update, in the dtype that its passes are added up in."""
    moments: int
    """AdamW's two."""
    activations: int
    """What a pass keeps for its backward pass."""
    workspace: int
    """What lives for a moment: the loss's logits and the head's gradient, or a layer's backward pass."""
    gathered: int
    """Whole layers, where weights are spread or lie elsewhere: one in use, one coming, and their gradients."""


def tuning(
    config: ModelConfig,
    method: Method,
    tokens: int,
    device: Device = "cuda",
    settings: Settings | None = None,
    answers: int | None = None,
) -> Tuning:
    """What tuning takes with passes of up to `tokens`, of which `answers` are answers' (all, where it is not said).

    An update's fullest moment is the start of a backward pass, when all activations are there, or its end, when all
    gradients are: they meet only where an update has several passes.
    """
    settings = settings or Settings()
    adapters = adapter_count(config, settings.rank) if method in ADAPTERS else 0
    trained = adapters or config.parameter_count
    gradients = _here(_gradients(method, trained, settings), settings)
    kept = _activations(config, method, tokens, device, settings)
    if settings.one_pass:
        gradients, kept = _fuller_end(config, gradients, kept)
    return Tuning(
        weights=_here(_weights(config, method, settings) + 4 * adapters, settings),
        masters=_here(2 * trained, settings) if method in IN_HALVES else 0,
        gradients=gradients,
        moments=_here(8 * adapters or moment_bytes(config, settings.moments), settings),
        activations=kept,
        workspace=_workspace(config, method, tokens, tokens if answers is None else answers, device, settings),
        gathered=_gathered(config, pass_bytes(method, settings)) if settings.shards > 1 or settings.offload else 0,
    )


def _weights(config: ModelConfig, method: Method, settings: Settings) -> int:
    if method == "qlora":
        return nf4_bytes(config, pass_bytes(method, settings))
    return pass_bytes(method, settings) * config.parameter_count


def pass_bytes(method: Method, settings: Settings) -> int:
    """Bytes of a number in a pass."""
    return 4 if _precision(method, settings) == "fp32" else 2


def attends_at_once(method: Method, settings: Settings, device: Device) -> bool:
    """Whether one kernel attends to runs of unlike lengths, and nothing is copied together afterwards.

    It is there for bf16 on a GPU: those without bf16, whose passes are in fp16 or fp32, have none.
    """
    return device == "cuda" and _precision(method, settings) == "bf16"


def _precision(method: Method, settings: Settings) -> str:
    return settings.adapters_beside if method in ADAPTERS else method


def _here(count: int, settings: Settings) -> int:
    """Bytes on one GPU of what is spread over all."""
    return 0 if settings.offload else count // settings.shards


def moment_bytes(config: ModelConfig, moments: Moments) -> int:
    """Bytes of both moments of all weights. Vectors, and matrices that do not divide into blocks, keep fp32 ones."""
    if moments != "8bit":
        return 2 * _MOMENT_BYTES[moments] * config.parameter_count
    small = _numbers_in_blocks(config)
    return 2 * small + 2 * small // MOMENT_BLOCK * 4 + 8 * (config.parameter_count - small)


def _numbers_in_blocks(config: ModelConfig) -> int:
    """Numbers of matrices whose last dimension divides into blocks."""
    layer = sum(rows * columns for rows, columns in matrices(config) if columns % MOMENT_BLOCK == 0)
    return config.layers * layer + (token_rows(config) if config.width % MOMENT_BLOCK == 0 else 0)


def _gradients(method: Method, trained: int, settings: Settings) -> int:
    if settings.in_backward:
        return 0
    return trained * (2 if method in IN_HALVES and settings.gradients != "fp32" else 4)


def _fuller_end(config: ModelConfig, gradients: int, kept: int) -> tuple[int, int]:
    """Gradients and activations at the fuller end of a backward pass that is an update's only one."""
    last_layer = kept // config.layers
    return (0, kept) if kept > gradients + last_layer else (gradients, last_layer)


def _activations(config: ModelConfig, method: Method, tokens: int, device: Device, settings: Settings) -> int:
    size, layers = pass_bytes(method, settings), settings.recomputed_layers
    at_once = attends_at_once(method, settings, device)
    if passes.written_out(config, method, device):
        return passes.activations(config, size, tokens, layers, at_once=at_once)
    rank = settings.rank if method in ADAPTERS else 0
    return autograd.activations(config, size, tokens, device, layers, rank, at_once=at_once)


def _workspace(
    config: ModelConfig, method: Method, tokens: int, answers: int, device: Device, settings: Settings
) -> int:
    size, at_once = pass_bytes(method, settings), attends_at_once(method, settings, device)
    if passes.written_out(config, method, device):
        apart = method in IN_HALVES and (settings.in_backward or settings.gradients == "fp32")
        backward = passes.backward_workspace(config, size, tokens, device, apart)
        whole = passes.block_keeps(config, size, at_once=at_once)
    else:
        backward = autograd.backward_workspace(config, method, size, tokens)
        whole = autograd.block_keeps(config, size, device, settings.rank if method in ADAPTERS else 0, at_once=at_once)
    if settings.recomputed_layers == config.layers:
        backward += tokens * (whole - size * config.width)  # run again, a layer is whole
    if settings.one_pass and not settings.in_backward and method not in ADAPTERS:
        backward += size * config.vocab_rows * config.width  # the head's gradient, the first of all to be there
    return max(loss_workspace(config, size, answers, device, head_learns=method not in ADAPTERS), backward)


def loss_workspace(config: ModelConfig, size: int, answers: int, device: Device, *, head_learns: bool = True) -> int:
    """The hidden states of answer tokens, their gradients, the head's, and logits in chunks.

    A GPU's kernel turns logits into their gradients in place; a CPU has fp32 copies beside them. The head's gradients
    of several chunks are added up in fp32.
    """
    most = LOSS_CHUNK if device == "cpu" else GPU_LOSS_CHUNK
    chunk, next_chunk = min(answers, most), min(max(answers - most, 0), most)
    hidden = 2 * size * answers * config.width
    a_logit = size if device == "cuda" else size + 4 if size == 4 else size + 8
    made = a_logit * chunk * config.vocab_rows
    if not head_learns:
        return hidden + made
    head, kept = config.vocab_rows * config.width, size * chunk * config.vocab_rows
    if not next_chunk:
        return hidden + max(made, kept + size * head)
    both = kept + size * next_chunk * config.vocab_rows
    return hidden + max(made, 4 * head + max(a_logit * next_chunk * config.vocab_rows, both, kept + size * head))


def _gathered(config: ModelConfig, size: int) -> int:
    """What of weights and gradients is whole for a moment, where they are spread.

    Two layers, one of them on its way; embedding and head all the time, with the head's gradient; and the gradients
    that cross in fp32, beside themselves in the passes' dtype.
    """
    layers, rows = 2 * block_numbers(config), token_rows(config)
    return size * (layers + rows) + size * rows + (size + 4) * max(layers, rows)
