"""What a family is: how it spells its configuration and its weights in transformers' layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Mapping

    from roslin.model.config import Activation, ModelConfig
    from roslin.model.fields import Fields

# transformers has several names for the same functions (its activations.py).
ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "silu": "silu",
    "swish": "silu",
}


@dataclass(frozen=True)
class Source:
    """Where one parameter lies in a file: one tensor, or several to stack by rows.

    Three are queries, keys and values, whose rows `ModelConfig` counts; others are of one size.
    With `per_head`, the file's rows run [heads, 3, head_dim] (GPT-NeoX's fused QKV) and the decoder's [3, heads,
    head_dim].
    """

    names: tuple[str, ...]
    per_head: bool = False

    def rows(self, config: ModelConfig, whole: int) -> list[int]:
        """How many of a parameter's `whole` rows each tensor has."""
        if len(self.names) == 3:
            return [config.query_rows, config.key_rows, config.key_rows]
        return [whole // len(self.names)] * len(self.names)


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

    def block_names(self, parameter: str) -> tuple[str, ...]:
        """The names of a block's `parameter` (`qkv.weight`) within a layer of a file, without the layer's prefix."""
        return tuple(name.partition("{}.")[2] for name in self.block[parameter].names)


def one(name: str, per_head: bool = False) -> Source:
    """A parameter that is one tensor."""
    return Source((name,), per_head)


def norm_or_linear(ours: str, theirs: str) -> dict[str, Source]:
    """The weight and the bias of a norm or of a linear layer."""
    return {f"{ours}.{part}": one(f"{theirs}.{part}") for part in ("weight", "bias")}
