"""Writing GGUF files as llama.cpp's converter does, from transformers models and tokenizers.

The tensors' names are those of the `gguf` package's own table.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Packing
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tiny import enliven

ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gpt_neox": "gptneox"}
MODELS: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "gpt_neox": (GPTNeoXConfig, GPTNeoXForCausalLM),
}
SIZES = {
    "vocab_size": 96,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def tiny_model(family: str, **overrides: Any) -> PreTrainedModel:
    """A random model whose rows are wide enough to be packed."""
    config, model = MODELS[family]
    grouped = {} if family == "gpt_neox" else {"num_key_value_heads": 2, "tie_word_embeddings": False}
    made: PreTrainedModel = model(config(**{**SIZES, **grouped, **overrides}))
    enliven(made)
    return made


def write_model(
    path: Path,
    model: PreTrainedModel,
    packing: Packing = Packing.F32,
    *,
    without: Sequence[str] = (),
    extra: Mapping[str, np.ndarray] | None = None,
    values: Mapping[str, Any] | None = None,
    split: int = 0,
) -> Path:
    """A GGUF file of a model, its matrices packed; in parts of `split` tensors each, if that is above 0."""
    writer = gguf.GGUFWriter(path, ARCHITECTURES[model.config.model_type], split_max_tensors=split)
    _add_config(writer, model.config)
    for key, value in (values or {}).items():
        add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32, bool: writer.add_bool}
        add[type(value)](key.replace("*", writer.arch), value)
    for name, tensor in converted(model).items():
        if name not in (*without, *(extra or {})):
            kind = packing if tensor.ndim == 2 else Packing.F32
            writer.add_tensor(name, gguf.quantize(tensor.numpy(), kind), raw_dtype=kind)
    for name, array in (extra or {}).items():
        writer.add_tensor(name, array)
    _write(writer)
    return path


def converted(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The model's weights under the names and in the order of rows of llama.cpp's converter."""
    config = model.config
    architecture = next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == ARCHITECTURES[config.model_type])
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    state = dict(model.state_dict())
    if config.tie_word_embeddings:
        del state["lm_head.weight"]
    return {names.get_name(name, (".weight", ".bias")): _rearranged(name, x, config) for name, x in state.items()}


def _rearranged(name: str, tensor: torch.Tensor, config: Any) -> torch.Tensor:
    heads, rest = config.num_attention_heads, tensor.shape[1:]
    if config.model_type == "llama" and (".q_proj." in name or ".k_proj." in name):
        parts = heads if ".q_proj." in name else config.num_key_value_heads
        return tensor.reshape(parts, 2, -1, *rest).transpose(1, 2).reshape(tensor.shape)
    if ".query_key_value." in name:
        by_head = tensor.reshape(heads, 3, -1, *rest)
        return torch.cat([by_head[:, part].reshape(-1, *rest) for part in range(3)])
    return tensor


def _add_config(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id)
    writer.add_token_list([f"token {id}" for id in range(config.vocab_size)])
    rope = config.rope_parameters
    if config.model_type == "gpt_neox":
        head_dim = config.hidden_size // config.num_attention_heads
        writer.add_rope_dimension_count(int(head_dim * rope["partial_rotary_factor"]))
        writer.add_parallel_residual(config.use_parallel_residual)
        writer.add_layer_norm_eps(config.layer_norm_eps)
        return
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if getattr(config, "head_dim", None):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if config.model_type == "llama":
        writer.add_vocab_size(config.vocab_size)
        writer.add_rope_dimension_count(config.head_dim)


def write_tokenizer(path: Path, source: Path, pre: str | None, architecture: str = "llama", **values: Any) -> Path:
    """A GGUF file of a byte-level tokenizer.json, without a model. `values` are keys of `tokenizer.ggml` to change."""
    content = json.loads(source.read_text(encoding="utf-8"))
    added = {token["id"]: token for token in content["added_tokens"]}
    vocabulary = {id: token for token, id in content["model"]["vocab"].items()}
    vocabulary |= {id: token["content"] for id, token in added.items()}
    kinds = [(3 if added[id]["special"] else 4) if id in added else 1 for id in range(len(vocabulary))]
    merges = [m if isinstance(m, str) else " ".join(m) for m in content["model"]["merges"]]
    tokens = [vocabulary[id] for id in range(len(vocabulary))]
    keys = {"model": "gpt2", "tokens": tokens, "token_type": kinds, "merges": merges}
    return write_keys(path, architecture, **(keys if pre is None else keys | {"pre": pre}) | values)


def write_keys(path: Path, architecture: str = "llama", **values: Any) -> Path:
    """A GGUF file without tensors, of keys of `tokenizer.ggml`; a key of None is left out."""
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in values.items():
        key = "tokenizer.chat_template" if name == "chat_template" else f"tokenizer.ggml.{name}"
        if isinstance(value, list):
            writer.add_array(key, value)
        elif value is not None:
            add = {str: writer.add_string, int: writer.add_uint32, bool: writer.add_bool}
            add[type(value)](key, value)
    _write(writer)
    return path


def _write(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
