"""A share of a model: what one of several processes holds that compute every layer together.

It has some of the heads, and as much of the MLP: of the first matrices the rows that make them, and of the last ones
the columns that read them. So what the shares' last matrices write adds up to what the whole ones do. Of embedding and
head it has some rows. Norms, and little else, are whole everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from roslin.errors import InputError
from roslin.model.adapter import is_adapter
from roslin.model.decoder import Decoder
from roslin.model.files import is_quantised, unchanged
from roslin.model.load import assign, room_for
from roslin.model.stored_rows import StoredRows

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from roslin.model.config import ModelConfig


@dataclass(frozen=True)
class Share:
    """Which of `count` shares."""

    rank: int
    count: int

    @property
    def is_first(self) -> bool:
        """Whether it is the one that adds what must be added once."""
        return self.rank == 0


def load_share(
    path: Path, config: ModelConfig, share: Share, *, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Decoder:
    """A decoder of this share's sizes; of the files only the pages that hold its numbers are read.

    What its layers' last matrices write must be summed over the shares; the first one's biases are theirs, the others'
    are zeros. Raises what `load_decoder` does, UsageError as `ModelConfig.shared` does, and InputError for an adapter
    and for a model that `roslin quantize` wrote.
    """
    refuse(path)
    device = torch.device(device)
    sizes = config.shared(share.count)
    stored = StoredRows(path, config)
    with torch.device("meta"):
        decoder = Decoder(sizes)
    with unchanged(stored.paths), room_for(sizes, dtype, device):
        for name in [name for name, _ in decoder.named_parameters()]:
            assign(decoder, name, _part(stored, config, sizes, share, name).to(device=device, dtype=dtype))
    decoder.tie()
    return decoder


def refuse(path: Path) -> None:
    """Raises InputError for what cannot be shared."""
    if is_adapter(path):
        raise InputError(
            f"{path} is an adapter, which several processes cannot share: merge it (`roslin export {path} FOLDER`)."
        )
    if is_quantised(path):
        raise InputError(
            f"{path} has quantised weights, which several processes cannot share: give the model that it was made from."
        )


def _part(stored: StoredRows, config: ModelConfig, sizes: ModelConfig, share: Share, name: str) -> Tensor:
    """What a share has of a parameter."""
    whole = stored.shapes[name][0]
    module, _, kind = name.rpartition(".")
    match module.rpartition(".")[2]:
        case "qkv":
            starts = [0, config.query_rows, config.query_rows + config.key_rows]
            counts = [sizes.query_rows, sizes.key_rows, sizes.key_rows]
        case "up":
            starts = list(range(0, config.up_rows, config.inner))
            counts = [sizes.inner] * len(starts)
        case "out" | "down" if kind == "bias":
            bias_D = stored.read(name, 0, whole)
            return bias_D if share.is_first else torch.zeros_like(bias_D)
        case "out":
            return stored.read(name, 0, whole, _run(share, sizes.query_rows))
        case "down":
            return stored.read(name, 0, whole, _run(share, sizes.inner))
        case "embedding" | "head":
            return _token_rows(stored, name, _run(share, sizes.vocab_rows))
        case _:
            return stored.read(name, 0, whole)
    runs = [(start + share.rank * count, count) for start, count in zip(starts, counts, strict=True)]
    return torch.cat([stored.read(name, start, start + count) for start, count in runs])


def _token_rows(stored: StoredRows, name: str, rows: slice) -> Tensor:
    """Rows of embedding or head, and zeros for those that are beyond the last one."""
    there = stored.shapes[name][0]
    found = stored.read(name, min(rows.start, there), min(rows.stop, there))
    missing = rows.stop - rows.start - len(found)
    return F.pad(found, (0, 0) * (found.dim() - 1) + (0, missing)) if missing else found


def _run(share: Share, count: int) -> slice:
    return slice(share.rank * count, (share.rank + 1) * count)
