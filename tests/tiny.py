"""Makers of tiny random transformers models, the oracle of the decoder and the ground of tests elsewhere."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import (
    GPTJConfig,
    GPTJForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def tiny_gpt_neox(
    folder: Path, *, tokenizer: Path | None = None, dtype: torch.dtype = torch.float32, seed: int = 0, **overrides: Any
) -> PreTrainedModel:
    """A random GPT-NeoX saved into `folder`, with the tokenizer of another folder copied in if one is given."""
    values: dict[str, Any] = {
        "vocab_size": 128,
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "max_position_embeddings": 512,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    # The spelling of transformers 4, which 5 reads as well, and writes as rope_parameters.
    rotary = {"rotary_emb_base": overrides.pop("rotary_base", 10000.0), "rotary_pct": overrides.pop("rotary_pct", 0.5)}
    config = GPTNeoXConfig(**{**values, **rotary, **overrides})
    return _saved(GPTNeoXForCausalLM(config), folder, tokenizer, dtype, seed)


def tiny_gptj(
    folder: Path, *, tokenizer: Path | None = None, dtype: torch.dtype = torch.float32, seed: int = 0, **overrides: Any
) -> PreTrainedModel:
    """A random GPT-J saved into `folder`, with the tokenizer of another folder copied in if one is given."""
    values: dict[str, Any] = {
        "vocab_size": 128,
        "n_embd": 48,
        "n_layer": 3,
        "n_head": 4,
        "n_positions": 512,
        "rotary_dim": 8,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    return _saved(GPTJForCausalLM(GPTJConfig(**{**values, **overrides})), folder, tokenizer, dtype, seed)


LLAMAS = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}


def tiny_llama(
    folder: Path,
    *,
    kind: str = "llama",
    tokenizer: Path | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    **overrides: Any,
) -> PreTrainedModel:
    """A random model of the llama family (`kind` is its model_type), two queries a key, saved into `folder`."""
    values: dict[str, Any] = {
        "vocab_size": 128,
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "intermediate_size": 96,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    config, model = LLAMAS[kind]
    return _saved(model(config(**{**values, **overrides})), folder, tokenizer, dtype, seed)


def _saved(
    model: PreTrainedModel, folder: Path, tokenizer: Path | None, dtype: torch.dtype, seed: int
) -> PreTrainedModel:
    enliven(model, seed)
    for parameter in model.parameters():  # model.to() would round the rotary tables as well
        parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype
    model.eval()
    model.save_pretrained(folder)
    for name in TOKENIZER_FILES if tokenizer else ():
        if (source := Path(str(tokenizer)) / name).exists():
            shutil.copy(source, folder / name)
    return model


def enliven(model: PreTrainedModel, seed: int = 0) -> None:
    """Set random weights so that every part matters: logits spread over several units, and differ by position."""
    source = torch.Generator().manual_seed(seed)
    for parameter, spread, centre in _spreads(model):
        parameter.data = centre + spread * torch.randn(parameter.shape, generator=source)


def _spreads(model: PreTrainedModel) -> Iterator[tuple[torch.nn.Parameter, float, float]]:
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            yield parameter, 1.0 if "emb" in name or "wte" in name else 1.5 * parameter.shape[1] ** -0.5, 0.0
        else:
            is_norm_weight = name.endswith("weight")
            yield parameter, 0.2, 1.0 if is_norm_weight else 0.0
