"""Some rows of a model's parameters, read from its files without the others: what a process of many needs."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, cast

import torch

from roslin.model.decoder import Decoder
from roslin.model.families import FAMILIES
from roslin.model.grad_mode import no_grad
from roslin.model.load import checked_parts
from roslin.model.quantised import QuantisedWeight, stacked
from roslin.model.stored_quantised import StoredQuantised

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from roslin.model.config import ModelConfig
    from roslin.model.stored import Stored

    Rows = slice | Tensor


class StoredRows:
    """The parameters of a model in its files, by rows. Of plain files only the pages that hold these are read."""

    @no_grad
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
        found = [part.read()[rows] for part, rows in self._pieces(name, start, stop)]
        if columns is not None:
            found = [part[:, columns] for part in found]
        place = torch.empty(stop - start, *found[0].shape[1:], dtype=self.dtype)
        torch.cat([part.to(self.dtype) for part in found], out=place)
        return place

    def is_quantised(self, name: str) -> bool:
        """Whether a parameter is in 8 or 4 bits, all of it."""
        return all(isinstance(part, StoredQuantised) for part in self._parts[name])

    def quantised(self, name: str, start: int, stop: int) -> QuantisedWeight:
        """Rows `start` to `stop` of one that is, as it is kept; where they lie so, in the file's own pages."""
        pieces = cast("list[tuple[StoredQuantised, Rows]]", self._pieces(name, start, stop))
        return stacked([part.weight().rows(rows) for part, rows in pieces])

    def _pieces(self, name: str, start: int, stop: int) -> list[tuple[Stored, Rows]]:
        """Of which parts of a parameter, and which rows of these, its rows `start` to `stop` are made."""
        source, parts = FAMILIES[self._config.family].source(name), self._parts[name]
        if source.per_head:
            return [(parts[0], _by_head(self._config, start, stop))]
        found: list[tuple[Stored, Rows]] = []
        first = 0
        for part, count in zip(parts, source.rows(self._config, self.shapes[name][0]), strict=True):
            lower, upper = max(start - first, 0), min(stop - first, count)
            if lower < upper:
                found.append((part, slice(lower, upper)))
            first += count
        return found or [(parts[0], slice(0, 0))]


def _by_head(config: ModelConfig, start: int, stop: int) -> Tensor:
    """The file's rows [heads, 3, head_dim] that are the decoder's [3, heads, head_dim] from `start` to `stop`."""
    row = torch.arange(start, stop)
    kind, rest = row // (config.heads * config.head_dim), row % (config.heads * config.head_dim)
    return (rest // config.head_dim * 3 + kind) * config.head_dim + rest % config.head_dim
