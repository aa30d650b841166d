"""The published models that Roslin knows without having them: those of Dolly's table, and SmolLM2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from roslin.model.config import ModelConfig

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Published:
    """One model as its owner published it."""

    name: str
    licence: str
    """As the hub spells it."""
    tokens: int
    """Of its tokenizer, added ones included; `vocab_size` of the configuration may be more."""
    values: Mapping[str, Any]
    """Of its config.json, those that say what it is made of."""
    note: str = ""
    """What is not certain about it."""

    @property
    def config(self) -> ModelConfig:
        """The configuration."""
        return ModelConfig.from_hf(self.values, self.name)


def _gpt_neox(width: int, layers: int, heads: int, rows: int, activation: str = "gelu") -> dict[str, Any]:
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "vocab_size": rows,
        "max_position_embeddings": 2048,
        "hidden_act": activation,
        "layer_norm_eps": 1e-05,
        "rotary_pct": 0.25,
        "rotary_emb_base": 10000,
        "use_parallel_residual": True,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }


def _gptj(rows: int) -> dict[str, Any]:
    return {
        "architectures": ["GPTJForCausalLM"],
        "model_type": "gptj",
        "n_embd": 4096,
        "n_layer": 28,
        "n_head": 16,
        "n_inner": None,
        "n_positions": 2048,
        "rotary_dim": 64,
        "vocab_size": rows,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-05,
        "tie_word_embeddings": False,
        "bos_token_id": 50256,
        "eos_token_id": 50256,
    }


_SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-05,
    "rope_theta": 100000,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

PUBLISHED = {
    model.name: model
    for model in (
        Published("smollm2", "apache-2.0", 49152, _SMOLLM2),
        Published("databricks/dolly-v2-3b", "mit", 50280, _gpt_neox(2560, 32, 32, 50280)),
        Published("databricks/dolly-v2-7b", "mit", 50280, _gpt_neox(4096, 32, 32, 50280)),
        Published("databricks/dolly-v2-12b", "mit", 50280, _gpt_neox(5120, 36, 40, 50280)),
        Published(
            "databricks/dolly-v1-6b",
            "cc-by-nc-4.0",
            50403,
            _gptj(50403),
            note="its 50,403 rows follow from its trainer, which adds three keys to GPT-J's 50,400 tokens",
        ),
        Published("EleutherAI/pythia-2.8b", "apache-2.0", 50277, _gpt_neox(2560, 32, 32, 50304)),
        Published("EleutherAI/pythia-6.9b", "apache-2.0", 50277, _gpt_neox(4096, 32, 32, 50432)),
        Published("EleutherAI/pythia-12b", "apache-2.0", 50277, _gpt_neox(5120, 36, 40, 50688)),
        Published("EleutherAI/gpt-j-6B", "apache-2.0", 50400, _gptj(50400)),
        Published("EleutherAI/gpt-neox-20b", "apache-2.0", 50277, _gpt_neox(6144, 44, 64, 50432, "gelu_fast")),
    )
}
"""By the name that `find_model` takes. GPT-NeoX-20B's activation is by tanh, Pythia's by erf."""
