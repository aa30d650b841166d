"""How GGUF files name and arrange the weights of each architecture, as llama.cpp's converter writes them.

A new architecture is one entry of `LAYOUTS`: its config.json, and a map from its tensors' names to transformers'.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from roslin.errors import InputError
from roslin.model.gguf_config import llama_config, neox_config
from roslin.model.gguf_tensor import RowOrder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from roslin.gguf_file import GgufFile

EMBEDDING, HEAD = "token_embd.weight", "output.weight"
IGNORED = re.compile(r"^rope_freqs\.weight$|\.(attn_rot_embd|rope_freqs)(\.weight)?$")
"""Tables of positions, which follow from the configuration."""


@dataclass(frozen=True)
class GgufLayout:
    """One architecture. `outer` and `block` go from the file's names (in a layer, without `blk.3.`) to transformers'.

    A tensor may be absent if it is the head, or one of those that a flag of config.json switches: then the flag is
    false if all of them are absent. `order` says in what order a tensor's rows lie, by its name, of a model with so
    many query heads and key heads.
    """

    config: Callable[[GgufFile], dict[str, Any]]
    outer: Mapping[str, str]
    block: Mapping[str, str]
    switched: Mapping[str, tuple[str, ...]]
    order: Callable[[str, int, int], RowOrder | None]

    def names(self, layers: int) -> dict[str, str]:
        """All names that the file of a model with so many layers may have, and transformers' names for them."""
        blocks = {
            f"blk.{layer}.{ours}": theirs.format(layer)
            for layer in range(layers)
            for ours, theirs in self.block.items()
        }
        return {**self.outer, **blocks}

    def flags(self, found: set[str]) -> dict[str, bool]:
        """What the tensors of a file say about the flags of its config.json."""
        kinds = {name.partition(".")[2].partition(".")[2] for name in found if name.startswith("blk.")}
        return {flag: not kinds.isdisjoint(names) for flag, names in self.switched.items()}

    def is_needed(self, name: str, flags: Mapping[str, bool]) -> bool:
        """Whether a file must have this tensor."""
        off = [names for flag, names in self.switched.items() if not flags[flag]]
        return name != HEAD and not any(name.endswith(f".{kind}") for names in off for kind in names)


def layout_of(file: GgufFile) -> GgufLayout:
    """The layout of a file's architecture. Raises InputError for one that Roslin does not run."""
    architecture = file.value("general.architecture", str)
    if architecture not in LAYOUTS:
        known = ", ".join(LAYOUTS)
        raise InputError(f"{file.path}: the architecture {architecture!r} is not supported; Roslin runs {known}.")
    if file.values.get(f"{architecture}.expert_count"):
        raise InputError(f"{file.path} is a mixture of experts, which Roslin does not run.")
    return LAYOUTS[architecture]


def _no_order(name: str, heads: int, kv_heads: int) -> None:
    """The rows lie as transformers has them."""


def _llama_order(name: str, heads: int, kv_heads: int) -> RowOrder | None:
    """A head's rows lie in pairs that turn together; transformers has the pairs' first halves, then their second."""
    stem = name.rsplit(".", 1)[0].rsplit(".", 1)[-1]
    parts = {"attn_q": heads, "attn_k": kv_heads}.get(stem)
    return RowOrder((parts, -1, 2), (1, 2)) if parts else None


def _neox_order(name: str, heads: int, kv_heads: int) -> RowOrder | None:
    """All queries, all keys, all values; transformers has them head by head."""
    return RowOrder((3, heads, -1), (0, 1)) if ".attn_qkv." in name else None


def _both(names: Mapping[str, str]) -> dict[str, str]:
    return {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in names.items() for part in ("weight", "bias")}


def _weights(names: Mapping[str, str]) -> dict[str, str]:
    return {f"{ours}.weight": f"{theirs}.weight" for ours, theirs in names.items()}


def _biases(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}.bias" for name in names)


LAYER = "model.layers.{}."
OUTER = _weights({"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"})
NORMS = _weights({"attn_norm": LAYER + "input_layernorm", "ffn_norm": LAYER + "post_attention_layernorm"})
HEAD_NORMS = _weights({"attn_q_norm": LAYER + "self_attn.q_norm", "attn_k_norm": LAYER + "self_attn.k_norm"})
QKV = {f"attn_{part}": f"{LAYER}self_attn.{part}_proj" for part in "qkv"}
OUT = {"attn_output": LAYER + "self_attn.o_proj"}
MLP = {f"ffn_{part}": f"{LAYER}mlp.{part}_proj" for part in ("gate", "up", "down")}

NEOX = "gpt_neox.layers.{}."
LAYOUTS: dict[str, GgufLayout] = {
    "llama": GgufLayout(
        config=llama_config,
        outer=OUTER,
        block=NORMS | _both(QKV | OUT | MLP),
        switched={"attention_bias": _biases(*QKV, *OUT), "mlp_bias": _biases(*MLP)},
        order=_llama_order,
    ),
    "qwen2": GgufLayout(
        config=llama_config,
        outer=OUTER,
        block=NORMS | _both(QKV) | _weights(OUT | MLP),
        switched={},
        order=_no_order,
    ),
    "qwen3": GgufLayout(
        config=llama_config,
        outer=OUTER,
        block=NORMS | HEAD_NORMS | _both(QKV | OUT) | _weights(MLP),
        switched={"attention_bias": _biases(*QKV, *OUT)},
        order=_no_order,
    ),
    "gptneox": GgufLayout(
        config=neox_config,
        outer=_weights({"token_embd": "gpt_neox.embed_in", "output": "embed_out"})
        | _both({"output_norm": "gpt_neox.final_layer_norm"}),
        block=_both(
            {
                "attn_norm": NEOX + "input_layernorm",
                "ffn_norm": NEOX + "post_attention_layernorm",
                "attn_qkv": NEOX + "attention.query_key_value",
                "attn_output": NEOX + "attention.dense",
                "ffn_up": NEOX + "mlp.dense_h_to_4h",
                "ffn_down": NEOX + "mlp.dense_4h_to_h",
            }
        ),
        switched={"attention_bias": _biases("attn_qkv", "attn_output")},
        order=_neox_order,
    ),
}
