"""adapter_config.json, in which PEFT says what an adapter is: reading what Roslin runs, and writing it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from roslin.model.adapted import lora_scaling
from roslin.model.fields import Fields
from roslin.model.files import json_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from roslin.model.adapted import Lora

CONFIG = "adapter_config.json"

READ = {
    "peft_type",
    "base_model_name_or_path",
    "revision",
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "trainable_token_indices",
    "bias",
    "init_lora_weights",
}
WITHOUT_EFFECT = {
    "task_type",
    "auto_mapping",
    "inference_mode",
    "peft_version",
    "runtime_config",
    "target_modules",  # the tensors tell which modules are adapted, and which are stored whole
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "modules_to_save",
    "ensure_weight_tying",
    "megatron_core",
    "eva_config",  # how A was drawn
    "qalora_group_size",  # read only with use_qalora
}
"""Fields that do not change what a stored adapter computes. Any other that is set is of a kind that is not run."""

PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Values of init_lora_weights that leave the base as it is; PiSSA, OLoRA, CorDA and LoftQ change its weights."""


@dataclass(frozen=True)
class PeftConfig:
    """What an adapter's configuration says.

    The patterns give modules, by regular expressions for the end of their names, a rank or an alpha of their own.
    `token_ids` are the tokens whose rows are stored, by the module's name; `None` stands for the embedding.
    """

    base: str | None
    revision: str | None
    rank: int
    alpha: float
    dropout: float
    rslora: bool
    rank_pattern: Mapping[str, float]
    alpha_pattern: Mapping[str, float]
    token_ids: Mapping[str | None, list[int]]

    @classmethod
    def read(cls, folder: Path) -> PeftConfig:
        """Read an adapter's folder. Raises InputError naming the file and every key that is wrong or not supported."""
        path = folder / CONFIG
        values = json_object(path)
        fields = Fields(values, str(path))
        _refuse_other_kinds(values, fields)
        config = cls(
            base=_text(fields, values, "base_model_name_or_path"),
            revision=_text(fields, values, "revision"),
            rank=fields.size("r", 8),
            alpha=fields.number("lora_alpha", 8.0),
            dropout=_dropout(fields, values),
            rslora=fields.flag("use_rslora", False),
            rank_pattern=_pattern(fields, values, "rank_pattern"),
            alpha_pattern=_pattern(fields, values, "alpha_pattern"),
            token_ids=_token_ids(fields, values),
        )
        fields.raise_faults()
        return config

    def rank_of(self, module: str) -> int:
        """The rank of a module, by its whole name."""
        return int(_matched(self.rank_pattern, module, self.rank))

    def scaling_of(self, module: str) -> float:
        """What a module's B·A is multiplied with."""
        return lora_scaling(_matched(self.alpha_pattern, module, self.alpha), self.rank_of(module), self.rslora)


def _matched(pattern: Mapping[str, float], module: str, default: float) -> float:
    """The value of the first expression that fits the end of a name, from a dot on, as PEFT looks for it."""
    return next((value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", module)), default)


def _refuse_other_kinds(values: Mapping[str, Any], fields: Fields) -> None:
    if (kind := values.get("peft_type")) != "LORA":
        fields.fault(f"peft_type: is {kind!r}; Roslin runs LORA")
    if (bias := values.get("bias", "none")) != "none":
        fields.fault(f"bias: is {bias!r}; Roslin runs adapters with 'none', which leave the base's biases as they are")
    if (start := values.get("init_lora_weights", True)) not in PLAIN_STARTS:
        fields.fault(f"init_lora_weights: is {start!r}, which changes the base's weights; convert it to plain LoRA")
    for key in sorted(values.keys() - READ - WITHOUT_EFFECT):
        if values[key]:
            fields.fault(f"{key}: is {values[key]!r}; Roslin does not run adapters of this kind")


def _text(fields: Fields, values: Mapping[str, Any], key: str) -> str | None:
    value = values.get(key)
    if value is not None and not isinstance(value, str):
        fields.fault(f"{key}: is {value!r}; it must be a text")
        return None
    return value or None


def _dropout(fields: Fields, values: Mapping[str, Any]) -> float:
    return fields.share("lora_dropout", 0.0) if values.get("lora_dropout") else 0.0


def _pattern(fields: Fields, values: Mapping[str, Any], key: str) -> Mapping[str, float]:
    value = values.get(key) or {}
    if not isinstance(value, dict) or not all(_is_positive(number) for number in value.values()):
        fields.fault(f"{key}: is {value!r}; it must give each name a number above 0")
        return {}
    if broken := [name for name in value if not _is_expression(name)]:
        fields.fault(f"{key}: {broken[0]!r} is no regular expression")
        return {}
    return value


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _is_expression(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def _token_ids(fields: Fields, values: Mapping[str, Any]) -> Mapping[str | None, list[int]]:
    value = values.get("trainable_token_indices") or {}
    named = value if isinstance(value, dict) else {None: value}
    if not all(_are_ids(ids) for ids in named.values()):
        fields.fault(f"trainable_token_indices: is {value!r}; it must be a list of token ids, or one for each module")
        return {}
    return named


def _are_ids(value: object) -> bool:
    if not isinstance(value, list) or len(set(map(repr, value))) != len(value):
        return False
    return all(isinstance(token, int) and not isinstance(token, bool) and token >= 0 for token in value)


def write_peft_config(
    folder: Path,
    lora: Lora,
    *,
    base: str,
    revision: str | None,
    whole: Iterable[str],
    token_ids: Mapping[str, list[int]],
) -> None:
    """Write the configuration of an adapter whose modules are all named; `whole` ones are stored beside it."""
    values = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": revision,
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha,  # PEFT's own are whole numbers
        "lora_dropout": lora.dropout,
        "use_rslora": lora.rslora,
        "use_dora": False,
        "target_modules": list(lora.modules),
        "rank_pattern": {},
        "alpha_pattern": {},
        "modules_to_save": list(whole) or None,
        "trainable_token_indices": dict(token_ids) or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }
    (folder / CONFIG).write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
