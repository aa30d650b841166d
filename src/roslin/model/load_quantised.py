"""A quantised model for answering: its matrices stay as they are, in the pages of their files where that will do."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from roslin.model.decoder import Decoder
from roslin.model.families import FAMILIES
from roslin.model.files import unchanged
from roslin.model.grad_mode import no_grad
from roslin.model.load import assign, checked_parts, load_config, placed, room_for
from roslin.model.quantised import stacked
from roslin.model.quantised_linear import QuantisedEmbedding, QuantisedLinear
from roslin.model.stored_quantised import StoredQuantised

if TYPE_CHECKING:
    from collections.abc import Sequence

    from roslin.model.config import ModelConfig
    from roslin.model.family import Source
    from roslin.model.quantised import QuantisedWeight


@no_grad
def load_quantised(
    path: Path,
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    config: ModelConfig | None = None,
) -> Decoder:
    """The decoder of a model that `roslin quantize` wrote, its matrices in 8 or 4 bits; the rest is of `dtype`.

    Raises InputError and MachineError as `load_decoder` does.
    """
    path, device = Path(path), torch.device(device)
    config = config or load_config(path)
    with torch.device("meta"):
        decoder = Decoder(config)
    parts = checked_parts(path, decoder)
    place = partial(placed, decoder, parts, dtype, device)
    with unchanged({part.path for its in parts.values() for part in its}), room_for(config, dtype, device):
        matrices = {}
        for name, its in parts.items():
            if all(isinstance(part, StoredQuantised) for part in its):
                source = FAMILIES[config.family].source(name)
                matrices[name] = _weight(config, source, cast("Sequence[StoredQuantised]", its), device)
            else:
                assign(decoder, name, place(name))
        for name, weight in matrices.items():
            take(decoder, name, weight)
    return decoder


def _weight(
    config: ModelConfig, source: Source, parts: Sequence[StoredQuantised], device: torch.device
) -> QuantisedWeight:
    """A parameter's matrix with the decoder's order of rows."""
    weights = [part.weight() for part in parts]
    weight = weights[0]
    if source.per_head:
        rows = torch.arange(weight.shape[0]).view(config.heads, 3, config.head_dim).transpose(0, 1).flatten()
        weight = weight.rows(rows)
    else:
        weight = stacked(weights)
    return weight.to(device)


def take(decoder: Decoder, name: str, weight: QuantisedWeight) -> None:
    """Put a quantised module in the place of a plain one."""
    path = name.removesuffix(".weight")
    if path == "embedding":
        decoder.embedding = cast("nn.Embedding", QuantisedEmbedding(weight, lambda: decoder.dtype))
        if decoder.config.tied_head:
            decoder.head = cast("nn.Linear", QuantisedLinear(weight, decoder.head.bias))
        return
    parent, _, attribute = path.rpartition(".")
    linear = decoder.get_submodule(path)
    assert isinstance(linear, nn.Linear)
    setattr(decoder.get_submodule(parent), attribute, QuantisedLinear(weight, linear.bias))
