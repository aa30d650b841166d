"""A 4-bit matrix as it lies in weight files, in several pieces, read as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from roslin.errors import InputError
from roslin.model.bitsandbytes_layout import from_bitsandbytes, nf4_groups
from roslin.model.stored import put

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch
    from torch import Tensor

    from roslin.model.nf4 import Nf4Weight
    from roslin.model.stored import Stored


@dataclass(frozen=True)
class StoredNf4:
    """One matrix in bitsandbytes' nf4, by its pieces' names; in plain numbers of `dtype` when it is read."""

    path: Path
    name: str
    pieces: Mapping[str, Stored]
    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, name: str, pieces: Mapping[str, Stored]) -> StoredNf4:
        """The matrix `name`. Raises InputError naming every piece that is missing or amiss."""
        weight = _weight(name, pieces)
        return cls(pieces[name].path, name, pieces, weight.shape, weight.dtype)

    def __str__(self) -> str:
        """Where it is, for people."""
        return f"{self.path.name}: {self.name}"

    def read(self) -> Tensor:
        """The matrix in plain numbers, in fresh memory."""
        return _weight(self.name, self.pieces).dequantize()

    def read_into(self, place: Tensor) -> None:
        """Read into `place`, which has this shape."""
        put(self.read(), place)


def with_nf4(tensors: Mapping[str, Stored], faults: list[str]) -> dict[str, Stored]:
    """Tensors by name, with the pieces of each 4-bit matrix as one; what is wrong with any goes to `faults`."""
    plain = dict(tensors)
    for matrix, names in nf4_groups(tensors).items():
        pieces = {name: plain.pop(name) for name in names}
        try:
            plain[matrix] = StoredNf4.of(matrix, pieces)
        except InputError as error:
            faults.append(f"{next(iter(pieces.values())).path.name}: {error}")
    return plain


def _weight(name: str, pieces: Mapping[str, Stored]) -> Nf4Weight:
    return from_bitsandbytes(name, {full: piece.read() for full, piece in pieces.items()})
