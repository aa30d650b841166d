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

from roslin.errors import InputError, UsageError
from roslin.model.adapter import is_adapter
from roslin.model.decoder import Decoder
from roslin.model.files import unchanged
from roslin.model.grad_mode import no_grad
from roslin.model.load import assign, room_for
from roslin.model.load_quantised import take
from roslin.model.quantised import stacked
from roslin.model.stored_rows import StoredRows

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from roslin.model.config import ModelConfig
    from roslin.model.quantised import QuantisedWeight


@dataclass(frozen=True)
class Share:
    """Which of `count` shares."""

    rank: int
    count: int

    @property
    def is_first(self) -> bool:
        """Whether it is the one that adds what must be added once."""
        return self.rank == 0


@no_grad
def load_share(
    path: Path, config: ModelConfig, share: Share, *, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Decoder:
    """A decoder of this share's sizes; of the files only the pages that hold its numbers are read.

    What its layers' last matrices write must be summed over the shares; the first one's biases are theirs, the others'
    are zeros. Matrices in 8 and 4 bits stay so. Raises what `load_decoder` does, InputError for an adapter, and
    UsageError as `ModelConfig.shared` does, and where shares would cut a group of weights in 4 bits.
    """
    refuse(path)
    device = torch.device(device)
    sizes = config.shared(share.count)
    stored = StoredRows(path, config)
    with torch.device("meta"):
        decoder = Decoder(sizes)
    names = [name for name, _ in decoder.named_parameters()]
    quantised = {name for name in names if stored.is_quantised(name)}
    with unchanged(stored.paths), room_for(sizes, dtype, device):
        for name in names:
            if name not in quantised:
                assign(decoder, name, _part(stored, config, sizes, share, name).to(device=device, dtype=dtype))
        if not quantised:
            decoder.tie()
        for name in quantised:  # which takes the biases that are there by now
            take(decoder, name, _quantised_part(stored, config, sizes, share, name).to(device))
    return decoder


def refuse(path: Path) -> None:
    """Raises InputError for what cannot be shared."""
    if is_adapter(path):
        raise InputError(
            f"{path} is an adapter, which several processes cannot share: merge it (`roslin export {path} FOLDER`)."
        )


def _part(stored: StoredRows, config: ModelConfig, sizes: ModelConfig, share: Share, name: str) -> Tensor:
    """What a share has of a parameter in plain numbers."""
    runs, columns = _runs(stored, config, sizes, share, name), _columns(sizes, share, name)
    found = torch.cat([stored.read(name, run.start, run.stop, columns) for run in runs])
    if name.endswith((".out.bias", ".down.bias")) and not share.is_first:
        return torch.zeros_like(found)
    missing = _missing(sizes, name, found)
    return F.pad(found, (0, 0) * (found.dim() - 1) + (0, missing)) if missing else found


def _quantised_part(
    stored: StoredRows, config: ModelConfig, sizes: ModelConfig, share: Share, name: str
) -> QuantisedWeight:
    """What a share has of a matrix in 8 or 4 bits."""
    runs, columns = _runs(stored, config, sizes, share, name), _columns(sizes, share, name)
    found = stacked([stored.quantised(name, run.start, run.stop) for run in runs])
    if columns is not None:
        if found.cuts(columns.start, columns.stop):
            raise UsageError(
                f"{share.count} processes or GPUs would cut groups of {found.group} weights in 4 bits, as each has "
                f"{columns.stop - columns.start:,} columns of {name}. Take fewer, or quantise the model in smaller "
                "groups or to int8 (`roslin quantize --group 32`, `--format int8`)."
            )
        found = stacked([found.columns(columns.start, columns.stop)])
    missing = _missing(sizes, name, found.codes)
    return found.with_zeros(missing) if missing else found


def _runs(stored: StoredRows, config: ModelConfig, sizes: ModelConfig, share: Share, name: str) -> list[slice]:
    """The rows that a share has of a parameter."""
    whole = stored.shapes[name][0]
    match _module(name):
        case "qkv":
            starts = [0, config.query_rows, config.query_rows + config.key_rows]
            counts = [sizes.query_rows, sizes.key_rows, sizes.key_rows]
        case "up":
            starts = list(range(0, config.up_rows, config.inner))
            counts = [sizes.inner] * len(starts)
        case "embedding" | "head":
            run = _run(share, sizes.vocab_rows)
            return [slice(min(run.start, whole), min(run.stop, whole))]
        case _:
            return [slice(0, whole)]
    firsts = [start + share.rank * count for start, count in zip(starts, counts, strict=True)]
    return [slice(first, first + count) for first, count in zip(firsts, counts, strict=True)]


def _columns(sizes: ModelConfig, share: Share, name: str) -> slice | None:
    """The columns that a share has of a matrix; None where it has all."""
    if name.endswith(".out.weight"):
        return _run(share, sizes.query_rows)
    if name.endswith(".down.weight"):
        return _run(share, sizes.inner)
    return None


def _missing(sizes: ModelConfig, name: str, found: Tensor) -> int:
    """How many rows embedding or head lack, being beyond the last one: they are zeros."""
    return sizes.vocab_rows - len(found) if _module(name) in ("embedding", "head") else 0


def _module(name: str) -> str:
    return name.split(".")[-2]


def _run(share: Share, count: int) -> slice:
    return slice(share.rank * count, (share.rank + 1) * count)
