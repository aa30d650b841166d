"""GPT-NeoX: Pythia, gpt-neox-20b, dolly-v2."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from roslin.model.config import ModelConfig
from roslin.model.family import ACTIVATIONS, Family, norm_or_linear, one
from roslin.model.scaling import read_scaling, write_scaling

if TYPE_CHECKING:
    from roslin.model.fields import Fields


def _read_neox(fields: Fields) -> ModelConfig:
    rope = fields.rope()
    width, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    head_dim = fields.divided("hidden_size", width, "num_attention_heads", heads)
    positions, scaling = read_scaling(rope, fields.size("max_position_embeddings", 2048))
    attention_bias = fields.flag("attention_bias", True)
    fraction = rope.share("partial_rotary_factor", fields.share("rotary_pct", 0.25))
    return ModelConfig(
        family="gpt_neox",
        width=width,
        layers=fields.size("num_hidden_layers"),
        heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        inner=fields.size("intermediate_size"),
        vocab_rows=fields.size("vocab_size"),
        positions=positions,
        rotary_dims=fields.rotary_dims("rotary_pct", int(head_dim * fraction), head_dim),
        rotary_base=rope.number("rope_theta", fields.number("rotary_emb_base", 10000.0)),
        rotary_interleaved=False,
        activation=fields.choice("hidden_act", ACTIVATIONS, "gelu"),
        norm_eps=fields.number("layer_norm_eps", 1e-5),
        shared_norm=False,
        parallel_residual=fields.flag("use_parallel_residual", True),
        qkv_bias=attention_bias,
        out_bias=attention_bias,
        mlp_bias=True,
        head_bias=False,
        tied_head=fields.flag("tie_word_embeddings", False),
        eos_id=fields.token("eos_token_id", 2),
        bos_id=fields.token("bos_token_id", 0),
        rotary_scaling=scaling,
    )


def _rotary_fraction(config: ModelConfig) -> float:
    """The fraction that readers turn back into `rotary_dims` by int(head_dim * fraction)."""
    fraction = config.rotary_dims / config.head_dim
    while int(config.head_dim * fraction) < config.rotary_dims:
        fraction = math.nextafter(fraction, 2.0)
    return fraction


def _write_neox(config: ModelConfig) -> dict[str, Any]:
    return {
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.inner,
        "rotary_pct": _rotary_fraction(config),
        "rotary_emb_base": config.rotary_base,
        "hidden_act": config.activation,
        "layer_norm_eps": config.norm_eps,
        "use_parallel_residual": config.parallel_residual,
        "attention_bias": config.qkv_bias,
        **write_scaling(config),
    }


GPT_NEOX = Family(
    architecture="GPTNeoXForCausalLM",
    read=_read_neox,
    write=_write_neox,
    body="gpt_neox.",
    outer={
        "embedding.weight": one("gpt_neox.embed_in.weight"),
        **norm_or_linear("norm", "gpt_neox.final_layer_norm"),
        "head.weight": one("embed_out.weight"),
    },
    block={
        **norm_or_linear("norm1", "gpt_neox.layers.{}.input_layernorm"),
        **norm_or_linear("norm2", "gpt_neox.layers.{}.post_attention_layernorm"),
        "qkv.weight": one("gpt_neox.layers.{}.attention.query_key_value.weight", per_head=True),
        "qkv.bias": one("gpt_neox.layers.{}.attention.query_key_value.bias", per_head=True),
        **norm_or_linear("out", "gpt_neox.layers.{}.attention.dense"),
        **norm_or_linear("up", "gpt_neox.layers.{}.mlp.dense_h_to_4h"),
        **norm_or_linear("down", "gpt_neox.layers.{}.mlp.dense_4h_to_h"),
    },
    aliases={"lm_head.weight": "embed_out.weight"},
    ignored=re.compile(r"\.attention\.(bias|masked_bias)$|(^|\.)rotary_emb\.\w+$"),
)
