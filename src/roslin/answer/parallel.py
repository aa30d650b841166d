"""A model in several processes, for answering."""

from collections.abc import Callable
from pathlib import Path

import torch

from roslin.engine.parallel import ParallelDecoder, hold_together
from roslin.model import Decoder, ModelConfig
from roslin.model.share import Share, load_share

Find = Callable[[], tuple[Path, ModelConfig, torch.dtype]]
"""Where a model is, its configuration, and the dtype to load it in."""


def load_together(find: Find, device: torch.device) -> ParallelDecoder:
    """Have all of torchrun's processes load a share. All but the first end in here, when the first one does.

    Raises what finding and loading raise in any of them, and UsageError where the model cannot be shared evenly.
    """

    def load(share: Share, device: torch.device) -> tuple[Decoder, ModelConfig]:
        path, config, dtype = find()
        return load_share(path, config, share, dtype=dtype, device=device), config

    return hold_together(device, load)
