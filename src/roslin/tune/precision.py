"""What passes are computed in: fp32, bf16, or fp16 on GPUs that have no bf16."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from roslin.memory import PassPrecision
    from roslin.tune.recipe import Recipe

DTYPES: dict[PassPrecision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def name_of(dtype: torch.dtype) -> PassPrecision:
    """As a recipe spells it."""
    return next(name for name, of_it in DTYPES.items() if of_it == dtype)


def choose_precision(recipe: Recipe, device: torch.device) -> PassPrecision:
    """The recipe's precision; `auto` is bf16 where the device has it natively (emulated, it is slower than fp32).

    A GPU without bf16 (V100, T4) has tensor cores for fp16. Not so where updates are made in the backward pass: a
    gradient that overflows is then found too late to take back the steps that others have made.
    """
    if recipe.precision != "auto":
        return recipe.precision
    if _has_bf16(device):
        return "bf16"
    return without_bf16(recipe) if device.type == "cuda" else "fp32"


def without_bf16(recipe: Recipe) -> PassPrecision:
    """What `auto` is on a GPU that has no bf16."""
    return "fp32" if recipe.optimizer.in_backward else "fp16"


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(False))
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
