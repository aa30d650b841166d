"""The families: how each spells its configuration and its weights in transformers' layout.

A new family is one entry of `FAMILIES`: two functions for its configuration, and a map from Roslin's names to its own.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from roslin.errors import InputError
from roslin.model.config import Activation, ModelConfig
from roslin.model.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

# transformers has several names for the same two functions (its activations.py).
ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
}


@dataclass(frozen=True)
class Source:
    """Where one parameter lies in a file: one tensor, or several to stack by rows.

    With `per_head`, the file's rows run [heads, 3, head_dim] (GPT-NeoX's fused QKV) and the decoder's [3, heads,
    head_dim].
    """

    names: tuple[str, ...]
    per_head: bool = False


@dataclass(frozen=True)
class Family:
    """One family: its names in `config.json`, how that file is read and written, and its map of weights.

    `outer` and `block` go from Roslin's parameter names to the file's; `{}` stands for the layer. `body` is the prefix
    that files saved from the model without its head leave out. `aliases` are other names that files use.
    `ignored` matches what old files carry besides weights: masks and tables that follow from the configuration.
    """

    architecture: str
    read: Callable[[Fields], ModelConfig]
    write: Callable[[ModelConfig], dict[str, Any]]
    body: str
    outer: Mapping[str, Source]
    block: Mapping[str, Source]
    aliases: Mapping[str, str]
    ignored: re.Pattern[str]

    def source(self, parameter: str) -> Source:
        """Where the decoder's `parameter` (`blocks.3.qkv.weight`) lies in a file."""
        if not parameter.startswith("blocks."):
            return self.outer[parameter]
        _, layer, rest = parameter.split(".", 2)
        pattern = self.block[rest]
        return Source(tuple(name.format(layer) for name in pattern.names), pattern.per_head)

    def canonical(self, name: str) -> str:
        """The name that `source` uses for a file's tensor, whatever variant of the layout the file has."""
        name = self.aliases.get(name, name)
        is_head = any(name in self.outer[key].names for key in ("head.weight", "head.bias") if key in self.outer)
        return name if is_head or name.startswith(self.body) else self.body + name


def _one(name: str, per_head: bool = False) -> Source:
    return Source((name,), per_head)


def _norm_and_linear(ours: str, theirs: str) -> dict[str, Source]:
    return {f"{ours}.{part}": _one(f"{theirs}.{part}") for part in ("weight", "bias")}


def _read_neox(fields: Fields) -> ModelConfig:
    rope = fields.rope()
    width, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    head_dim = fields.divided("hidden_size", width, "num_attention_heads", heads)
    fraction = rope.share("partial_rotary_factor", fields.share("rotary_pct", 0.25))
    return ModelConfig(
        family="gpt_neox",
        width=width,
        layers=fields.size("num_hidden_layers"),
        heads=heads,
        head_dim=head_dim,
        inner=fields.size("intermediate_size"),
        vocab_rows=fields.size("vocab_size"),
        positions=fields.size("max_position_embeddings", 2048),
        rotary_dims=fields.rotary_dims("rotary_pct", int(head_dim * fraction), head_dim),
        rotary_base=rope.number("rope_theta", fields.number("rotary_emb_base", 10000.0)),
        rotary_interleaved=False,
        activation=fields.choice("hidden_act", ACTIVATIONS, "gelu"),
        norm_eps=fields.number("layer_norm_eps", 1e-5),
        shared_norm=False,
        parallel_residual=fields.flag("use_parallel_residual", True),
        attention_bias=fields.flag("attention_bias", True),
        head_bias=False,
        tied_head=fields.flag("tie_word_embeddings", False),
        eos_id=fields.token("eos_token_id", 2),
        bos_id=fields.token("bos_token_id", 0),
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
        "max_position_embeddings": config.positions,
        "rotary_pct": _rotary_fraction(config),
        "rotary_emb_base": config.rotary_base,
        "hidden_act": config.activation,
        "layer_norm_eps": config.norm_eps,
        "use_parallel_residual": config.parallel_residual,
        "attention_bias": config.attention_bias,
    }


def _read_gptj(fields: Fields) -> ModelConfig:
    fields.rope()
    width, heads = fields.size("n_embd"), fields.size("n_head")
    head_dim = fields.divided("n_embd", width, "n_head", heads)
    return ModelConfig(
        family="gptj",
        width=width,
        layers=fields.size("n_layer"),
        heads=heads,
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
        attention_bias=False,
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


FAMILIES: dict[str, Family] = {
    "gpt_neox": Family(
        architecture="GPTNeoXForCausalLM",
        read=_read_neox,
        write=_write_neox,
        body="gpt_neox.",
        outer={
            "embedding.weight": _one("gpt_neox.embed_in.weight"),
            **_norm_and_linear("norm", "gpt_neox.final_layer_norm"),
            "head.weight": _one("embed_out.weight"),
        },
        block={
            **_norm_and_linear("norm1", "gpt_neox.layers.{}.input_layernorm"),
            **_norm_and_linear("norm2", "gpt_neox.layers.{}.post_attention_layernorm"),
            "qkv.weight": _one("gpt_neox.layers.{}.attention.query_key_value.weight", per_head=True),
            "qkv.bias": _one("gpt_neox.layers.{}.attention.query_key_value.bias", per_head=True),
            **_norm_and_linear("out", "gpt_neox.layers.{}.attention.dense"),
            **_norm_and_linear("up", "gpt_neox.layers.{}.mlp.dense_h_to_4h"),
            **_norm_and_linear("down", "gpt_neox.layers.{}.mlp.dense_4h_to_h"),
        },
        aliases={"lm_head.weight": "embed_out.weight"},
        ignored=re.compile(r"\.attention\.(bias|masked_bias)$|(^|\.)rotary_emb\.\w+$"),
    ),
    "gptj": Family(
        architecture="GPTJForCausalLM",
        read=_read_gptj,
        write=_write_gptj,
        body="transformer.",
        outer={
            "embedding.weight": _one("transformer.wte.weight"),
            **_norm_and_linear("norm", "transformer.ln_f"),
            **_norm_and_linear("head", "lm_head"),
        },
        block={
            **_norm_and_linear("norm1", "transformer.h.{}.ln_1"),
            "qkv.weight": Source(tuple(f"transformer.h.{{}}.attn.{part}_proj.weight" for part in "qkv")),
            "out.weight": _one("transformer.h.{}.attn.out_proj.weight"),
            **_norm_and_linear("up", "transformer.h.{}.mlp.fc_in"),
            **_norm_and_linear("down", "transformer.h.{}.mlp.fc_out"),
        },
        aliases={},
        ignored=re.compile(r"\.attn\.(bias|masked_bias|embed_positions)$"),
    ),
}


def read_config(values: Mapping[str, Any], source: str) -> ModelConfig:
    """The configuration in a transformers `config.json`; `source` names it in errors."""
    model_type = values.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise InputError(f"{source}: model_type {model_type!r} is not supported; Roslin runs {known}.")
    fields = Fields(values, source)
    config = FAMILIES[model_type].read(fields)
    fields.raise_faults()
    return config


def write_config(config: ModelConfig, dtype: torch.dtype) -> dict[str, Any]:
    """The values of a `config.json` for `config`, in the keys that transformers 4 writes and 5 reads as well."""
    family = FAMILIES[config.family]
    return {
        "architectures": [family.architecture],
        "model_type": config.family,
        **family.write(config),
        "vocab_size": config.vocab_rows,
        "tie_word_embeddings": config.tied_head,
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "use_cache": True,
    }
