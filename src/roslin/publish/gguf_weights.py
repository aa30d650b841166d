"""A decoder as the tensors and keys of a GGUF file: what llama.cpp calls them, and in what order it wants rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from roslin.errors import InputError
from roslin.model.scaling import frequencies, yarn_attention

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import gguf

    from roslin.model import Decoder, ModelConfig

ARCHITECTURES = {"gpt_neox": "gptneox", "llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""What llama.cpp calls the families. Mistral is a Llama to it."""
OUTER = {"embedding": "token_embd", "norm": "output_norm", "head": "output"}
BLOCK = {"norm1": "attn_norm", "norm2": "ffn_norm", "out": "attn_output", "down": "ffn_down"}


@dataclass(frozen=True)
class NamedTensor:
    """One tensor to be written: its name in the file, its shape, and how its numbers are got when it is its turn."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], Tensor]


def refusal(config: ModelConfig) -> str | None:
    """Why llama.cpp would not run a model, or would run it as another one; None where it runs it."""
    if config.family not in ARCHITECTURES:
        return "llama.cpp has no GPT-J"
    if config.rotary_scaling is not None and (why := _scaling_refusal(config)):
        return why
    if config.family == "gpt_neox":
        return None if config.activation != "silu" else "llama.cpp's GPT-NeoX has GELU, and this one has SiLU"
    if config.activation != "silu":
        return f"llama.cpp's {config.family} has SiLU, and this one has another activation"
    if config.rotary_dims != config.head_dim:
        return f"llama.cpp's {config.family} turns whole heads, and this one a part of each"
    if config.family == "qwen3" and (config.qkv_bias or config.out_bias):
        return "llama.cpp's qwen3 has no biases in attention"
    return None


def _scaling_refusal(config: ModelConfig) -> str | None:
    scaling = config.rotary_scaling
    assert scaling is not None
    if scaling.kind == "dynamic":
        return "llama.cpp has no dynamic scaling of positions"
    usual = scaling.truncate and scaling.attention_factor == yarn_attention(scaling.factor)
    if scaling.kind == "yarn" and not usual:
        return "llama.cpp's YaRN has its own temperature and rounding, and this model has others"
    return None


def add_config(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    """Put a model's sizes into a file."""
    writer.add_context_length(positions(config))
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.inner)
    writer.add_head_count(config.heads)
    writer.add_rope_dimension_count(config.rotary_dims)
    writer.add_rope_freq_base(float(config.rotary_base))
    writer.add_vocab_size(config.vocab_rows)
    if config.family == "gpt_neox":
        writer.add_parallel_residual(config.parallel_residual)
        writer.add_layer_norm_eps(config.norm_eps)
    else:
        writer.add_head_count_kv(config.kv_heads)
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
        writer.add_layer_norm_rms_eps(config.norm_eps)
    _add_scaling(writer, config)


def positions(config: ModelConfig) -> int:
    """How long a text may be: llama.cpp gives these architectures no window, so one that has it ends there."""
    return min(config.positions, config.window or config.positions)


def _add_scaling(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    from gguf import RopeScalingType

    scaling = config.rotary_scaling
    if scaling is None or scaling.kind == "llama3":  # the latter is a tensor
        return
    writer.add_rope_scaling_type(RopeScalingType(scaling.kind))
    writer.add_rope_scaling_factor(float(scaling.factor))
    writer.add_rope_scaling_orig_ctx_len(scaling.original)
    if scaling.kind == "yarn":
        writer.add_rope_scaling_yarn_beta_fast(scaling.beta_fast)
        writer.add_rope_scaling_yarn_beta_slow(scaling.beta_slow)


def named_tensors(decoder: Decoder) -> Iterator[NamedTensor]:
    """Everything that the file holds. Tensors are read one at a time."""
    config = decoder.config
    if config.rotary_scaling is not None and config.rotary_scaling.kind == "llama3":
        yield _rope_factors(config)
    for name, parameter in decoder.named_parameters():
        if not name.startswith("blocks."):
            stem, _, part = name.partition(".")
            yield _whole(f"{OUTER[stem]}.{part}", parameter)
            continue
        _, layer, stem, part = name.split(".")
        yield from _in_block(config, f"blk.{layer}.", stem, part, parameter)
    if config.family == "gpt_neox":
        yield from _required_of_neox(decoder)


def _required_of_neox(decoder: Decoder) -> Iterator[NamedTensor]:
    """What llama.cpp wants in every GPT-NeoX: a head of its own, and biases in attention, here of zeros."""
    config = decoder.config
    if config.tied_head:
        yield _whole("output.weight", decoder.head.weight)
    for layer in range(config.layers):
        for name, rows, has in (("qkv", config.qkv_rows, config.qkv_bias), ("output", config.width, config.out_bias)):
            if not has:
                yield _whole(f"blk.{layer}.attn_{name}.bias", torch.zeros(rows))


def _in_block(config: ModelConfig, prefix: str, stem: str, part: str, tensor: Tensor) -> Iterator[NamedTensor]:
    if stem in BLOCK:
        yield _whole(f"{prefix}{BLOCK[stem]}.{part}", tensor)
    elif stem in ("q_norm", "k_norm"):
        yield _whole(f"{prefix}attn_{stem}.{part}", tensor)
    elif stem == "qkv" and config.family == "gpt_neox":
        yield _whole(f"{prefix}attn_qkv.{part}", tensor)
    elif stem == "qkv":
        rows = [config.query_rows, config.key_rows, config.key_rows]
        heads = [config.heads, config.kv_heads, 0]
        for letter, its, count in zip("qkv", torch.split(tensor, rows), heads, strict=True):
            paired = count if ARCHITECTURES[config.family] == "llama" else 0
            yield _turned(f"{prefix}attn_{letter}.{part}", its, paired)
    else:
        names = ["ffn_gate", "ffn_up"] if config.gated_mlp else ["ffn_up"]
        for name, its in zip(names, tensor.chunk(len(names)), strict=True):
            yield _whole(f"{prefix}{name}.{part}", its)


def _whole(name: str, tensor: Tensor) -> NamedTensor:
    return NamedTensor(name, tuple(tensor.shape), tensor.detach)


def _turned(name: str, tensor: Tensor, heads: int) -> NamedTensor:
    """Of `heads` heads, the two dimensions of a pair that turns together beside each other, as llama wants them."""
    if not heads:
        return _whole(name, tensor)

    def read() -> Tensor:
        return tensor.detach().view(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)

    return NamedTensor(name, tuple(tensor.shape), read)


def _rope_factors(config: ModelConfig) -> NamedTensor:
    """By how much Llama 3's scaling slows each pair of dimensions."""
    dims, base = config.rotary_dims, config.rotary_base
    factors_R2 = frequencies(dims, base, None) / frequencies(dims, base, config.rotary_scaling)
    return _whole("rope_freqs.weight", factors_R2)


def check(config: ModelConfig, where: str) -> None:
    """Raise InputError for a model that a GGUF file cannot hold."""
    if why := refusal(config):
        raise InputError(f"{where} cannot be exported as GGUF: {why}. Use --format hf or ctranslate2.")
