"""What a model needs in memory, by part: arithmetic over its configuration, without making a tensor.

Counted are the tensors that Roslin's code holds at its fullest moment. What a process, a driver or an allocator's gaps
take besides is not.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from roslin.model.families import FAMILIES

if TYPE_CHECKING:
    from roslin.model import ModelConfig

Precision = Literal["fp32", "bf16", "nf4"]
"""What weights are kept in to answer. bf16 is as large as fp16; nf4 is for the matrices of layers, beside bf16."""
Method = Literal["fp32", "bf16", "lora", "qlora"]
"""How a model is tuned: all weights in fp32 or in bf16, or adapters with dropout beside frozen ones in bf16 or nf4."""
Device = Literal["cpu", "cuda"]

RANK = 16
"""Of the adapters on every matrix of every layer."""
NF4_BLOCK = 64
"""Numbers that share one fp32 magnitude."""
PROMPT_TOKENS = 4096
"""New prompts that the engine takes into one pass."""
LOSS_CHUNK = 1024
"""Answer tokens whose logits exist at one time."""
DRAWING_BYTES = 44
"""For each row of the head while a token is drawn, at worst: from a nucleus as wide as the vocabulary."""
NF4_UNPACKING = 6
"""Bytes a number while a matrix is unpacked: itself in fp32, and codes as indices or the half-precision copy."""
GIB = 2**30

_WEIGHT_BYTES = {"fp32": 4, "bf16": 2}
_BASE: dict[Method, Precision] = {"fp32": "fp32", "bf16": "bf16", "lora": "bf16", "qlora": "nf4"}


class _Parts:
    """Bytes by part."""

    def parts(self) -> dict[str, int]:
        """Each part by its name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(self.parts().values())

    def __str__(self) -> str:
        said = [f"{gib(count)} {name.replace('_', ' ')}" for name, count in self.parts().items() if count]
        return f"{' + '.join(said)} = {gib(self.total)} GiB"


@dataclass(frozen=True)
class Answering(_Parts):
    """Bytes that answering takes."""

    weights: int
    keys_and_values: int
    workspace: int
    """What lives for a moment: prompts on their way through a layer, logits, a matrix unpacked from nf4."""


@dataclass(frozen=True)
class Tuning(_Parts):
    """Bytes that tuning takes."""

    weights: int
    """Those that passes are computed with, adapters among them."""
    masters: int
    """fp32 weights behind bf16 ones."""
    gradients: int
    """Sums in fp32 over the passes of an update."""
    moments: int
    """AdamW's two."""
    activations: int
    """What one row's forward pass keeps for its backward pass."""
    workspace: int
    """What lives for a moment: the loss's logits and the head's gradient, or a layer's backward pass."""


def gib(count: int) -> str:
    """Bytes in GiB with three figures: 0.04, 5.17, 46.5, 345."""
    value = count / GIB
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def answering(
    config: ModelConfig, precision: Precision, positions: int, batch: int, device: Device = "cuda"
) -> Answering:
    """What `batch` answers at once take, each of up to `positions` tokens with its prompt."""
    key_bytes = 4 if device == "cpu" or precision == "fp32" else 2  # a CPU keeps them in fp32 whatever the weights
    return Answering(
        weights=_weights(config, precision),
        keys_and_values=2 * config.layers * config.key_rows * batch * positions * key_bytes,
        workspace=_answering_workspace(config, precision, positions, batch, device),
    )


def tuning(config: ModelConfig, method: Method, row_length: int, device: Device = "cuda") -> Tuning:
    """What tuning takes with rows of `row_length` tokens, without recomputing anything in the backward pass."""
    adapters = adapter_count(config) if method in ("lora", "qlora") else 0
    trained = adapters or config.parameter_count
    return Tuning(
        weights=_weights(config, _BASE[method]) + 4 * adapters,
        masters=4 * trained if method == "bf16" else 0,
        gradients=4 * trained,
        moments=8 * trained,
        activations=_activations(config, method, row_length, device),
        workspace=_tuning_workspace(config, method, row_length),
    )


def adapter_count(config: ModelConfig) -> int:
    """Parameters of adapters of rank `RANK` on every matrix that a file has in a layer."""
    return config.layers * RANK * sum(rows + columns for rows, columns in _matrices(config))


def _matrices(config: ModelConfig) -> list[tuple[int, int]]:
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


def _weights(config: ModelConfig, precision: Precision) -> int:
    if precision != "nf4":
        return config.parameter_count * _WEIGHT_BYTES[precision]
    packed = config.layers * sum(rows * columns for rows, columns in _matrices(config))
    return packed // 2 + packed // NF4_BLOCK * 4 + 2 * (config.parameter_count - packed)


def _largest_matrix(config: ModelConfig) -> int:
    return max(config.qkv_rows, config.up_rows, config.inner) * config.width


def _answering_workspace(config: ModelConfig, precision: Precision, positions: int, batch: int, device: Device) -> int:
    size = 4 if precision == "fp32" else 2
    tokens = max(positions, min(PROMPT_TOKENS, batch * positions))
    prompts = tokens * size * (_numbers_in_fused_layer(config) if device == "cpu" else _numbers_in_layer(config))
    drawing = batch * config.vocab_rows * DRAWING_BYTES
    return max(prompts, drawing) + (NF4_UNPACKING * _largest_matrix(config) if precision == "nf4" else 0)


def _numbers_in_layer(config: ModelConfig) -> int:
    """A token's numbers while its MLP is computed: the stream twice, norms, what attention gave, and the MLP's."""
    return (4 if config.shared_norm else 5) * config.width + _mlp_numbers(config)


def _numbers_in_fused_layer(config: ModelConfig) -> int:
    """The same on a CPU, where attention and MLP share their matrices if they stand beside each other."""
    if not config.parallel_residual:
        return 2 * config.width + _mlp_numbers(config)
    return config.width + config.qkv_rows + config.up_rows + 2 * (config.query_rows + config.inner)


def _activations(config: ModelConfig, method: Method, row_length: int, device: Device) -> int:
    size = 4 if method == "fp32" else 2
    adapted = method in ("lora", "qlora")
    # torch makes RMSNorm of several steps in fp32 on a CPU: it keeps what goes in and, to learn, what is normed.
    rms_bytes = None if device == "cuda" else 4 if adapted else 8
    layer = _norms_keep(config, size, rms_bytes) + _attention_keeps(config, size, device, rms_bytes)
    layer += size * _mlp_numbers(config)
    if adapted:
        layer += size * RANK * len(_matrices(config)) + _dropout_keeps(config, size, device)
    rotary, final_norm, ids = 2 * size * config.rotary_dims, size * config.width, 16
    rounded_adapters = size * adapter_count(config) if adapted else 0
    return row_length * (config.layers * layer + rotary + final_norm + ids) + rounded_adapters


def _norms_keep(config: ModelConfig, size: int, rms_bytes: int | None) -> int:
    """A layer's norms: their inputs and outputs, and per token a mean and a deviation."""
    norms = 1 if config.shared_norm else 2
    outputs = norms * size * config.width
    if config.norm == "rms" and rms_bytes is not None:
        return outputs + norms * (rms_bytes * config.width + 4)
    inputs = 1 if config.parallel_residual else 2
    return outputs + inputs * size * config.width + norms * 8


def _attention_keeps(config: ModelConfig, size: int, device: Device, rms_bytes: int | None) -> int:
    """Turned queries, keys and values, what was gathered, and its normalisers; with norms of heads, what goes in.

    Runs of unlike lengths cost a copy of what was gathered on a CPU.
    """
    copied = config.query_rows if device == "cpu" else 0
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


def _mlp_numbers(config: ModelConfig) -> int:
    """A token's numbers between the MLP's matrices, before and after the activation; a gate makes two more."""
    return config.up_rows + config.inner * (2 if config.gated_mlp else 1)


def _tuning_workspace(config: ModelConfig, method: Method, row_length: int) -> int:
    return max(_loss_workspace(config, method, row_length), _backward_workspace(config, method, row_length))


def _loss_workspace(config: ModelConfig, method: Method, row_length: int) -> int:
    """Were every token of a row an answer's: hidden states, their gradients, the head's, and logits in chunks.

    Of a second chunk on, the one before still lies there when the next is made: in fp32, or in bf16 and in fp32.
    """
    size = 4 if method == "fp32" else 2
    chunk, next_chunk = min(row_length, LOSS_CHUNK), min(max(row_length - LOSS_CHUNK, 0), LOSS_CHUNK)
    before, making = (4, 8) if method == "fp32" else (6, 6)
    hidden = 2 * size * row_length * config.width
    logits = max(8 * chunk, before * chunk + making * next_chunk) * config.vocab_rows
    if method in ("lora", "qlora"):
        return hidden + logits
    head = config.vocab_rows * config.width
    gradient = head * (4 if next_chunk else size)
    return hidden + gradient + max(logits, before * chunk * config.vocab_rows + head * size)


def _backward_workspace(config: ModelConfig, method: Method, row_length: int) -> int:
    """One layer's gradients, and one matrix's: its gradient, or itself unpacked."""
    size = 4 if method == "fp32" else 2
    matrix = {"lora": 0, "qlora": NF4_UNPACKING}.get(method, size) * _largest_matrix(config)
    return row_length * size * _numbers_in_layer(config) + matrix
