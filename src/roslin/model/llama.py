"""The llama family: Llama, SmolLM2, Mistral, Qwen2, Qwen2.5 and Qwen3, which differ in a few switches."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from roslin.model.config import ModelConfig
from roslin.model.family import ACTIVATIONS, Family, Source, norm_or_linear, one
from roslin.model.scaling import read_scaling, write_scaling

if TYPE_CHECKING:
    from collections.abc import Callable

    from roslin.model.fields import Fields

FULL, SLIDING = "full_attention", "sliding_attention"


def _reader(family: str) -> Callable[[Fields], ModelConfig]:
    def read(fields: Fields) -> ModelConfig:
        rope = fields.rope()
        positions, scaling = read_scaling(rope, fields.size("max_position_embeddings", 2048))
        width, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
        head_dim = _head_dim(fields, family, width, heads)
        kv_heads = fields.size("num_key_value_heads", heads)
        fields.divided("num_attention_heads", heads, "num_key_value_heads", kv_heads)
        bias = fields.flag("attention_bias", False)
        rotary_dims = int(head_dim * rope.share("partial_rotary_factor", fields.share("partial_rotary_factor", 1.0)))
        return ModelConfig(
            family=family,
            width=width,
            layers=fields.size("num_hidden_layers"),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            inner=fields.size("intermediate_size"),
            vocab_rows=fields.size("vocab_size"),
            positions=positions,
            rotary_dims=fields.rotary_dims("head_dim", rotary_dims, head_dim),
            rotary_base=rope.number("rope_theta", fields.number("rope_theta", 10000.0)),
            rotary_interleaved=False,
            activation=fields.choice("hidden_act", ACTIVATIONS, "silu"),
            norm_eps=fields.number("rms_norm_eps", 1e-6),
            shared_norm=False,
            parallel_residual=False,
            qkv_bias=True if family == "qwen2" else bias and family != "mistral",
            out_bias=bias and family in ("llama", "qwen3"),
            mlp_bias=family == "llama" and fields.flag("mlp_bias", False),
            head_bias=False,
            tied_head=fields.flag("tie_word_embeddings", False),
            eos_id=fields.token("eos_token_id", 2 if family in ("llama", "mistral") else None),
            bos_id=fields.token("bos_token_id", 1 if family in ("llama", "mistral") else None),
            norm="rms",
            gated_mlp=True,
            qk_norm=family == "qwen3",
            window=_window(fields, family),
            rotary_scaling=scaling,
        )

    return read


def _head_dim(fields: Fields, family: str, width: int, heads: int) -> int:
    if family == "qwen3":
        return fields.size("head_dim", 128)
    if fields.has("head_dim"):
        return fields.size("head_dim")
    return fields.divided("hidden_size", width, "num_attention_heads", heads)


def _window(fields: Fields, family: str) -> int | None:
    """How far attention sees: the same in all layers, or the file is refused."""
    if family == "mistral":
        return fields.window("sliding_window", 4096)
    if family == "llama" or not fields.flag("use_sliding_window", False):
        return None
    layers, first = fields.size("num_hidden_layers"), fields.count("max_window_layers", 28)
    kinds = set(fields.names("layer_types") or [SLIDING if layer >= first else FULL for layer in range(layers)])
    window = None if kinds == {FULL} else fields.window("sliding_window", 4096)
    if window is not None and kinds != {SLIDING}:
        fields.fault("use_sliding_window: only some layers would use the window; Roslin runs all or none")
    return window


def _write(config: ModelConfig) -> dict[str, Any]:
    values = {
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.inner,
        "rope_theta": config.rotary_base,
        "hidden_act": config.activation,
        "rms_norm_eps": config.norm_eps,
        **write_scaling(config),
    }
    if config.rotary_dims != config.head_dim:
        values["partial_rotary_factor"] = config.rotary_dims / config.head_dim
    if config.family in ("llama", "qwen3"):
        values["attention_bias"] = config.out_bias
    if config.family == "llama":
        values["mlp_bias"] = config.mlp_bias
    return values | _write_window(config)


def _write_window(config: ModelConfig) -> dict[str, Any]:
    if config.family == "mistral":
        return {"sliding_window": config.window}
    if config.family == "llama":
        return {}
    if config.window is None:
        return {"use_sliding_window": False}
    return {"use_sliding_window": True, "sliding_window": config.window, "max_window_layers": 0}


def _family(model_type: str, architecture: str) -> Family:
    layer = "model.layers.{}."
    return Family(
        architecture=architecture,
        read=_reader(model_type),
        write=_write,
        body="model.",
        outer={
            "embedding.weight": one("model.embed_tokens.weight"),
            "norm.weight": one("model.norm.weight"),
            "head.weight": one("lm_head.weight"),
        },
        block={
            "norm1.weight": one(layer + "input_layernorm.weight"),
            "norm2.weight": one(layer + "post_attention_layernorm.weight"),
            **_stacked("qkv", [f"{layer}self_attn.{part}_proj" for part in "qkv"]),
            "q_norm.weight": one(layer + "self_attn.q_norm.weight"),
            "k_norm.weight": one(layer + "self_attn.k_norm.weight"),
            **norm_or_linear("out", layer + "self_attn.o_proj"),
            **_stacked("up", [layer + "mlp.gate_proj", layer + "mlp.up_proj"]),
            **norm_or_linear("down", layer + "mlp.down_proj"),
        },
        aliases={},
        ignored=re.compile(r"(^|\.)rotary_emb\.\w+$"),
    )


def _stacked(ours: str, theirs: list[str]) -> dict[str, Source]:
    return {f"{ours}.{part}": Source(tuple(f"{name}.{part}" for name in theirs)) for part in ("weight", "bias")}


LLAMA = _family("llama", "LlamaForCausalLM")
MISTRAL = _family("mistral", "MistralForCausalLM")
QWEN2 = _family("qwen2", "Qwen2ForCausalLM")
QWEN3 = _family("qwen3", "Qwen3ForCausalLM")
