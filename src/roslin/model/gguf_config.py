"""The config.json of a model, from what a GGUF file says of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from roslin.errors import InputError
from roslin.model.gguf_tensor import GgufTensor
from roslin.model.scaling import RopeScaling, frequencies

if TYPE_CHECKING:
    from roslin.gguf_file import GgufFile

LLAMA3_POSITIONS = 8192
"""What Llama 3's models were first trained on. A GGUF file does not say: llama.cpp's converter assumes it."""


def llama_config(file: GgufFile) -> dict[str, Any]:
    """What config.json says of a llama, qwen2 or qwen3 model, but for its flags. InputError for keys that are amiss."""
    keys = _Keys(file)
    head_dim = keys.head_dim()
    turned = keys.whole("rope.dimension_count", head_dim)
    return {
        "model_type": keys.architecture,
        **keys.sizes(),
        "num_key_value_heads": keys.whole("attention.head_count_kv", keys.whole("attention.head_count")),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": keys.number("rope.freq_base", 10000.0),
        "rope_scaling": keys.rope_scaling(turned),
        **({} if turned == head_dim else {"partial_rotary_factor": _share(turned, head_dim)}),
    }


def neox_config(file: GgufFile) -> dict[str, Any]:
    """The same of a GPT-NeoX model."""
    keys = _Keys(file)
    head_dim = keys.head_dim()
    turned = keys.whole("rope.dimension_count", head_dim)
    return {
        "model_type": "gpt_neox",
        **keys.sizes(),
        "hidden_act": "gelu",
        "layer_norm_eps": keys.number("attention.layer_norm_epsilon"),
        "rotary_pct": _share(turned, head_dim),
        "rotary_emb_base": keys.number("rope.freq_base", 10000.0),
        "rope_scaling": keys.rope_scaling(turned),
        "use_parallel_residual": file.value(f"{keys.architecture}.use_parallel_residual", bool, True),
    }


class _Keys:
    """A file's keys of one architecture."""

    def __init__(self, file: GgufFile) -> None:
        self._file = file
        self.architecture = file.value("general.architecture", str)

    def sizes(self) -> dict[str, Any]:
        """What all families call by one name."""
        tokens = (f"tokenizer.ggml.{name}_token_id" for name in ("bos", "eos"))
        bos, eos = (self._file.value(key, int) if key in self._file.values else None for key in tokens)
        return {
            "hidden_size": self.whole("embedding_length"),
            "num_hidden_layers": self.whole("block_count"),
            "num_attention_heads": self.whole("attention.head_count"),
            "intermediate_size": self.whole("feed_forward_length"),
            "max_position_embeddings": self.whole("context_length"),
            "bos_token_id": bos,
            "eos_token_id": eos,
        }

    def whole(self, key: str, default: int | None = None) -> int:
        found = self._file.value(f"{self.architecture}.{key}", int, default)
        if found < 1:
            raise InputError(f"{self._file.path}: {self.architecture}.{key} is {found}; it must be above 0.")
        return found

    def number(self, key: str, default: float | None = None) -> float:
        found = self._file.value(f"{self.architecture}.{key}", float, default)
        return float(str(np.float32(found)))  # 1e-05 rather than 9.999999747378752e-06

    def head_dim(self) -> int:
        heads, width = self.whole("attention.head_count"), self.whole("embedding_length")
        size = self.whole("attention.key_length", width // heads)
        if self.whole("attention.value_length", size) != size:
            raise InputError(f"{self._file.path}: its values are of another size than its keys; Roslin needs one.")
        return size

    def rope_scaling(self, turned: int) -> dict[str, Any] | None:
        """How positions are stretched, `turned` being how many dimensions of a head turn; None where they are not."""
        table = next((entry for entry in self._file.entries if entry.name == "rope_freqs.weight"), None)
        if table is not None:
            return self._llama3(GgufTensor.of(table).read(), turned)
        factor = self.number("rope.scaling.factor", self.number("rope.scale_linear", 0.0))
        kind = self._file.value(f"{self.architecture}.rope.scaling.type", str, "linear")
        if kind == "none" or factor in (0.0, 1.0):
            return None
        if kind not in ("linear", "yarn"):
            raise InputError(
                f"{self._file.path}: positions scaled as {kind!r}; Roslin runs linear, yarn and Llama 3's."
            )
        return {"rope_type": kind, "factor": factor} | (self._yarn() if kind == "yarn" else {})

    def _yarn(self) -> dict[str, Any]:
        names = {"attn_factor": "attention_factor", "beta_fast": "beta_fast", "beta_slow": "beta_slow"}
        keys = {theirs: f"rope.scaling.yarn_{ours}" for ours, theirs in names.items()}
        given = {name: key for name, key in keys.items() if f"{self.architecture}.{key}" in self._file.values}
        original = {"original_max_position_embeddings": self.whole("rope.scaling.original_context_length")}
        return original | {name: self.number(key) for name, key in given.items()}

    def _llama3(self, slowed_R2: torch.Tensor, turned: int) -> dict[str, Any] | None:
        """Llama 3's scaling, of which a file has only by how much each pair of dimensions is slowed."""
        factor = float(slowed_R2.max())
        base = self.number("rope.freq_base", 10000.0)
        scaling = RopeScaling("llama3", factor, LLAMA3_POSITIONS, low=1.0, high=4.0)
        expected_R2 = frequencies(turned, base, None) / frequencies(turned, base, scaling)
        if expected_R2.shape != slowed_R2.shape or not torch.allclose(slowed_R2, expected_R2, rtol=1e-3):
            raise InputError(f"{self._file.path}: rope_freqs.weight scales positions in another way than Llama 3's.")
        return {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": scaling.low,
            "high_freq_factor": scaling.high,
            "original_max_position_embeddings": scaling.original,
        }


def _share(part: int, whole: int) -> float:
    """The fraction that readers turn back into `part` by int(whole * fraction)."""
    share = part / whole
    return share if int(whole * share) >= part else math.nextafter(share, 2.0)
