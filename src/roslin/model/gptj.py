"""GPT-J: gpt-j-6B, dolly-v1-6b."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from roslin.model.config import ModelConfig
from roslin.model.family import ACTIVATIONS, Family, Source, norm_or_linear, one

if TYPE_CHECKING:
    from roslin.model.fields import Fields


def _read_gptj(fields: Fields) -> ModelConfig:
    fields.unscaled_rope()
    width, heads = fields.size("n_embd"), fields.size("n_head")
    head_dim = fields.divided("n_embd", width, "n_head", heads)
    return ModelConfig(
        family="gptj",
        width=width,
        layers=fields.size("n_layer"),
        heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        inner=fields.size("n_inner", 4 * width),
        vocab_rows=fields.size("vocab_size"),
        positions=fields.size("n_positions", 2048),
        rotary_dims=fields.rotary_dims("rotary_dim", fields.size("rotary_dim"), head_dim),
        rotary_base=10000.0,
        rotary_interleaved=True,
        activation=fields.choice("activation_function", ACTIVATIONS, "gelu_new"),
        norm_eps=fields.number("layer_norm_epsilon", 1e-5),
        shared_norm=True,
        parallel_residual=True,
        qkv_bias=False,
        out_bias=False,
        mlp_bias=True,
        head_bias=True,
        tied_head=fields.flag("tie_word_embeddings", False),
        eos_id=fields.token("eos_token_id", 50256),
        bos_id=fields.token("bos_token_id", 50256),
    )


def _write_gptj(config: ModelConfig) -> dict[str, Any]:
    return {
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": config.inner,
        "n_positions": config.positions,
        "rotary_dim": config.rotary_dims,
        "activation_function": config.activation,
        "layer_norm_epsilon": config.norm_eps,
    }


GPTJ = Family(
    architecture="GPTJForCausalLM",
    read=_read_gptj,
    write=_write_gptj,
    body="transformer.",
    outer={
        "embedding.weight": one("transformer.wte.weight"),
        **norm_or_linear("norm", "transformer.ln_f"),
        **norm_or_linear("head", "lm_head"),
    },
    block={
        **norm_or_linear("norm1", "transformer.h.{}.ln_1"),
        "qkv.weight": Source(tuple(f"transformer.h.{{}}.attn.{part}_proj.weight" for part in "qkv")),
        "out.weight": one("transformer.h.{}.attn.out_proj.weight"),
        **norm_or_linear("up", "transformer.h.{}.mlp.fc_in"),
        **norm_or_linear("down", "transformer.h.{}.mlp.fc_out"),
    },
    aliases={},
    ignored=re.compile(r"\.attn\.(bias|masked_bias|embed_positions)$"),
)
