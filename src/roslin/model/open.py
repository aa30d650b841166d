"""A model, whatever it lies in: a folder, one file, GGUF, or an adapter beside its base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from roslin.model import adapter, files, load, load_quantised

if TYPE_CHECKING:
    import torch

    from roslin.model.config import ModelConfig
    from roslin.model.decoder import Decoder


def load_config(path: Path) -> ModelConfig:
    """The configuration of a model; of an adapter, that of its base with the adapter in it.

    Raises InputError if it is missing or not one that Roslin runs, and for an adapter whose base is not found.
    """
    path = Path(path)
    return adapter.load_adapted_config(path) if adapter.is_adapter(path) else load.load_config(path)


def load_decoder(
    path: Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    config: ModelConfig | None = None,
) -> Decoder:
    """The decoder of a model, as `roslin.model.load.load_decoder` has it; an adapter is merged into its base.

    `dtype` None keeps the files' own; `config` None is the model's own. Raises InputError with all that is wrong with
    the files, and MachineError when the device has no memory for the weights.
    """
    path = Path(path)
    how = adapter.load_adapted if adapter.is_adapter(path) else load.load_decoder
    return how(path, dtype=dtype, device=device, config=config)


def load_for_answering(
    path: Path, *, dtype: torch.dtype, device: torch.device | str = "cpu", config: ModelConfig | None = None
) -> Decoder:
    """The decoder as `load_decoder` has it; but of a quantised model its matrices stay in 8 or 4 bits."""
    path = Path(path)
    if not adapter.is_adapter(path) and files.is_quantised(path):
        return load_quantised.load_quantised(path, dtype=dtype, device=device, config=config)
    return load_decoder(path, dtype=dtype, device=device, config=config)


def text_source(path: Path) -> Path:
    """Where a model's tokenizer and chat template are: its folder, its GGUF file, or its base's where it has none."""
    path = Path(path)
    return adapter.text_source_of(path) if adapter.is_adapter(path) else files.text_source(path)
