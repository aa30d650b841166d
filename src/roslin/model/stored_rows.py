"""Some rows of a model's parameters, read from its files without the others: what a process of many needs."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import torch

from roslin.model.decoder import Decoder
from roslin.model.families import FAMILIES
from roslin.model.load import checked_parts

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from roslin.model.config import ModelConfig
    from roslin.model.family import Source
    from roslin.model.stored import Stored


class StoredRows:
    """The parameters of a model in its files, by rows. Of plain files only the pages that hold these are read."""

    def __init__(self, path: Path, config: ModelConfig) -> None:
        """Look through the files in `path`. Raises InputError for them as `load_decoder` does."""
        with torch.device("meta"):
            decoder = Decoder(config)
        self._config = config
        self._parts = checked_parts(path, decoder)
        self.dtype: torch.dtype = reduce(
            torch.promote_types, (part.dtype for parts in self._parts.values() for part in parts)
        )
        """The widest that the files have: all rows are read as this."""
        self.shapes = {name: tuple(parameter.shape) for name, parameter in decoder.named_parameters()}

    @property
    def paths(self) -> set[Path]:
        """The files."""
        return {part.path for parts in self._parts.values() for part in parts}

    def read(self, name: str, start: int, stop: int, columns: slice | None = None) -> Tensor:
        """Rows `start` to `stop` of a parameter as the decoder has it, on the CPU; or some columns of them."""
        source, parts = FAMILIES[self._config.family].source(name), self._parts[name]
        if source.per_head:
            found = [parts[0].read()[_by_head(self._config, start, stop)]]
        else:
            found = _overlapping(self._config, source, parts, self.shapes[name][0], start, stop)
        if columns is not None:
            found = [part[:, columns] for part in found]
        place = torch.empty(stop - start, *found[0].shape[1:], dtype=self.dtype)
        torch.cat([part.to(self.dtype) for part in found], out=place)
        return place


def _by_head(config: ModelConfig, start: int, stop: int) -> Tensor:
    """The file's rows [heads, 3, head_dim] that are the decoder's [3, heads, head_dim] from `start` to `stop`."""
    row = torch.arange(start, stop)
    kind, rest = row // (config.heads * config.head_dim), row % (config.heads * config.head_dim)
    return (rest // config.head_dim * 3 + kind) * config.head_dim + rest % config.head_dim


def _overlapping(
    config: ModelConfig, source: Source, parts: list[Stored], whole: int, start: int, stop: int
) -> list[Tensor]:
    found, first = [], 0
    for part, count in zip(parts, source.rows(config, whole), strict=True):
        lower, upper = max(start - first, 0), min(stop - first, count)
        if lower < upper:
            found.append(part.read()[lower:upper])
        first += count
    return found or [torch.empty(0, *parts[0].shape[1:])]
