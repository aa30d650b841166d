"""The families that Roslin runs, by the `model_type` of their `config.json`.

A new family is one file: two functions for its configuration, and a map from Roslin's names of weights to its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from roslin.errors import InputError
from roslin.model.fields import Fields
from roslin.model.gpt_neox import GPT_NEOX
from roslin.model.gptj import GPTJ
from roslin.model.llama import LLAMA, MISTRAL, QWEN2, QWEN3

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from roslin.model.config import ModelConfig
    from roslin.model.family import Family

FAMILIES: dict[str, Family] = {
    "gpt_neox": GPT_NEOX,
    "gptj": GPTJ,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
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
