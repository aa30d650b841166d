"""Rotary positions stretched beyond those that a model was trained on: linear, dynamic NTK, YaRN, and Llama 3's way.

The formulas are those of transformers' modeling_rope_utils, which the tests hold them against; where each comes from
stands at its function.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from roslin.errors import UsageError

if TYPE_CHECKING:
    from roslin.model.config import ModelConfig
    from roslin.model.fields import Fields

Kind = Literal["linear", "dynamic", "yarn", "llama3"]
CHOSEN = ("linear", "dynamic", "yarn")
"""The kinds that a person may choose for a model; Llama 3's is part of how its models were trained."""


@dataclass(frozen=True)
class RopeScaling:
    """How positions are stretched by `factor` beyond `original` ones.

    `attention_factor` multiplies cosines and sines (YaRN's temperature). `beta_fast` and `beta_slow` are the numbers
    of turns within the original positions above which YaRN leaves a pair as it is, and below which it slows it by the
    whole factor; `truncate` rounds the dimensions that they come to. `low` and `high` are Llama 3's bounds of the
    same, in `original` positions a wavelength.
    """

    kind: Kind
    factor: float
    original: int
    attention_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    low: float = 1.0
    high: float = 4.0


def parse_rope_scaling(text: str) -> tuple[Kind, float]:
    """A kind and a factor as people write them, such as `yarn:4`. Raises UsageError."""
    kind, _, factor = text.partition(":")
    try:
        number = float(factor)
    except ValueError:
        number = math.nan
    if kind not in CHOSEN or not 1 <= number <= 1024:
        raise UsageError(f"rope scaling is {text!r}; it must be {', '.join(CHOSEN)} and a factor from 1, as in yarn:4.")
    known: dict[str, Kind] = {name: name for name in get_args(Kind)}
    return known[kind], number


def scaled(config: ModelConfig, text: str) -> ModelConfig:
    """`config` with its positions stretched as `text` says (`linear:2`, `dynamic:2`, `yarn:4`).

    Raises UsageError for a text that says nothing of the kind, for a model whose positions are stretched already, and
    for GPT-J, whose folders have no field for it.
    """
    kind, factor = parse_rope_scaling(text)
    if config.rotary_scaling is not None:
        have = config.rotary_scaling
        raise UsageError(
            f"The model's positions are stretched already ({have.kind}, {have.factor:g} times {have.original}); "
            "stretching them again would give it positions that it has never seen."
        )
    if config.family == "gptj":
        raise UsageError("GPT-J's positions cannot be stretched: its config.json has no field that says so.")
    scaling = RopeScaling(kind, factor, config.positions, yarn_attention(factor) if kind == "yarn" else 1.0)
    return replace(config, rotary_scaling=scaling, positions=int(config.positions * factor))


KINDS: dict[str, Kind | None] = {"default": None, **{kind: kind for kind in get_args(Kind)}}


def read_scaling(rope: Fields, positions: int) -> tuple[int, RopeScaling | None]:
    """How many positions a configuration has in all, and how they are stretched, by its rope fields.

    `positions` is `max_position_embeddings`: the stretched ones for linear scaling, the original ones for dynamic, and
    either for the others, which have a field for the original.
    """
    kind = rope.choice("rope_type", KINDS, "default")
    if kind is None:
        return positions, None
    factor = rope.number("factor")
    if kind == "linear":
        return positions, RopeScaling(kind, factor, round(positions / factor))
    if kind == "dynamic":
        return int(positions * factor), RopeScaling(kind, factor, positions)
    original = rope.size("original_max_position_embeddings", positions)
    if kind == "llama3":
        low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
        return positions, RopeScaling(kind, factor, original, low=low, high=high)
    scaling = RopeScaling(
        kind,
        factor,
        original,
        attention_factor=_read_yarn_attention(rope, factor),
        beta_fast=rope.number("beta_fast", 32.0),
        beta_slow=rope.number("beta_slow", 1.0),
        truncate=rope.flag("truncate", True),
    )
    return max(positions, int(original * factor)), scaling


def _read_yarn_attention(rope: Fields, factor: float) -> float:
    own, shared = rope.number("mscale", 1.0), rope.number("mscale_all_dim", 1.0)
    both = rope.has("mscale") and rope.has("mscale_all_dim")
    inferred = yarn_attention(factor, own) / yarn_attention(factor, shared) if both else yarn_attention(factor)
    return rope.number("attention_factor", inferred)


def write_scaling(config: ModelConfig) -> dict[str, Any]:
    """The fields of a `config.json` for positions and how they are stretched, which `read_scaling` reads back."""
    scaling = config.rotary_scaling
    if scaling is None:
        return {"max_position_embeddings": config.positions}
    rope: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind in ("yarn", "llama3"):
        rope["original_max_position_embeddings"] = scaling.original
    if scaling.kind == "yarn":
        rope |= {"attention_factor": scaling.attention_factor, "truncate": scaling.truncate}
        rope |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow}
    if scaling.kind == "llama3":
        rope |= {"low_freq_factor": scaling.low, "high_freq_factor": scaling.high}
    positions = scaling.original if scaling.kind == "dynamic" else config.positions
    return {"max_position_embeddings": positions, "rope_scaling": rope}


def yarn_attention(factor: float, mscale: float = 1.0) -> float:
    """What cosines and sines are multiplied with: 0.1 m ln(factor) + 1 (YaRN, arXiv 2309.00071, section 3.4)."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def frequencies(dims: int, base: float, scaling: RopeScaling | None) -> Tensor:
    """Radians a position that each of the `dims` / 2 pairs turns by, float32 on the CPU.

    Those of dynamic scaling depend on a sequence's length: here they are those of a short one.
    """
    plain_R2 = _plain(dims, base)
    if scaling is None or scaling.kind == "dynamic":
        return plain_R2
    if scaling.kind == "linear":
        return plain_R2 / scaling.factor
    return _yarn(dims, base, scaling) if scaling.kind == "yarn" else _llama3(plain_R2, scaling)


def dynamic_frequencies(dims: int, base: float, scaling: RopeScaling, lengths_M: Tensor) -> Tensor:
    """The same for sequences of M lengths, float32 on the lengths' device, [M, dims / 2].

    The base grows with a sequence beyond the original positions, so that its slowest pair turns no further than it did
    at their end ("NTK-aware scaled RoPE", as posted by bloc97 and emozilla).
    """
    stretch_M = scaling.factor * lengths_M.clamp(min=scaling.original) / scaling.original - (scaling.factor - 1)
    base_M1 = (base * stretch_M ** (dims / (dims - 2)))[:, None]
    share_R2 = torch.arange(0, dims, 2, dtype=torch.float32, device=lengths_M.device) / dims
    return 1.0 / base_M1**share_R2


def _plain(dims: int, base: float) -> Tensor:
    # Made as transformers makes them, in float32 on the CPU, so that tables agree to the bit.
    return 1.0 / (base ** (torch.arange(0, dims, 2, dtype=torch.float32) / dims))


def _yarn(dims: int, base: float, scaling: RopeScaling) -> Tensor:
    """Fast pairs as they are, slow ones slowed by the factor, a ramp between (YaRN, arXiv 2309.00071, section 3.2)."""
    grown_R2 = base ** (torch.arange(0, dims, 2, dtype=torch.float32) / dims)
    first, last = _yarn_bounds(dims, base, scaling)
    slowed_R2 = ((torch.arange(dims // 2, dtype=torch.float32) - first) / (last - first)).clamp(0, 1)
    kept_R2 = 1 - slowed_R2
    return 1.0 / (scaling.factor * grown_R2) * (1 - kept_R2) + 1.0 / grown_R2 * kept_R2


def _yarn_bounds(dims: int, base: float, scaling: RopeScaling) -> tuple[float, float]:
    """The pairs at which the ramp begins and ends."""

    def pair_of(turns: float) -> float:
        return dims * math.log(scaling.original / (turns * 2 * math.pi)) / (2 * math.log(base))

    first, last = pair_of(scaling.beta_fast), pair_of(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dims - 1)
    return first, last + 0.001 if first == last else last


def _llama3(plain_R2: Tensor, scaling: RopeScaling) -> Tensor:
    """Short wavelengths kept, long ones slowed, a ramp between (Llama 3.1's reference code, apply_scaling)."""
    turns_R2 = scaling.original / (2 * math.pi / plain_R2)
    slowed_R2 = plain_R2 / scaling.factor
    kept_R2 = (turns_R2 - scaling.low) / (scaling.high - scaling.low)
    between_R2 = (1 - kept_R2) * slowed_R2 + kept_R2 * plain_R2
    return torch.where(turns_R2 < scaling.low, slowed_R2, torch.where(turns_R2 > scaling.high, plain_R2, between_R2))
