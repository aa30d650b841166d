"""A matrix in Roslin's 8 or 4 bits as it lies in weight files, in two or three pieces.

Beside `X.weight`, which holds the codes, lie `X.weight.scale` and, in 4 bits, `X.weight.shift`; the rows are the
file's own, as those of a plain matrix would be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from roslin.errors import InputError
from roslin.model.fp8 import FP8
from roslin.model.quantised import GROUPS, Form, QuantisedWeight
from roslin.model.stored import Slot, put

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from roslin.model.stored import Stored

METHOD = "roslin"
SCALE, SHIFT = ".scale", ".shift"
DTYPES = {
    (torch.int8, torch.float32, None),
    (FP8, torch.float32, None),
    (torch.uint8, torch.float16, torch.float16),
}
"""Of codes, scales and shifts."""


@dataclass(frozen=True)
class StoredQuantised:
    """One matrix by its pieces; in plain fp32 when it is read."""

    path: Path
    name: str
    codes: Stored
    scale: Stored
    shift: Stored | None
    shape: tuple[int, int]
    dtype: torch.dtype = torch.float32

    @classmethod
    def of(cls, name: str, pieces: Mapping[str, Stored]) -> StoredQuantised:
        """The matrix `name`. Raises InputError for a piece that is missing or amiss."""
        absent = [f"{name}{piece} is missing" for piece in ("", SCALE) if name + piece not in pieces]
        if absent:
            raise InputError("; ".join(absent))
        codes, scale, shift = pieces[name], pieces[name + SCALE], pieces.get(name + SHIFT)
        found = (codes.dtype, scale.dtype, shift and shift.dtype)
        if found not in DTYPES or len(codes.shape) != 2:
            raise InputError(f"{name} is neither in 8 bits with scales in fp32 nor in 4 bits with both in fp16")
        rows, width = codes.shape
        shape = (rows, width if shift is None else 2 * width)
        misfit = scale.shape != (rows,)
        if shift is not None:
            misfit = shift.shape != scale.shape or scale.shape[0] != rows or _group(shape[1], scale.shape[1]) is None
        if misfit:
            raise InputError(f"{name} of shape {list(shape)} has scales of shape {list(scale.shape)}")
        return cls(codes.path, name, codes, scale, shift, shape)

    def __str__(self) -> str:
        """Where it is, for people."""
        return f"{self.path.name}: {self.name}"

    @property
    def form(self) -> str:
        """What it is in, and how large its groups are."""
        if self.shift is not None:
            return f"int4 in groups of {self.group}"
        return "fp8" if self.codes.dtype == FP8 else "int8"

    @property
    def group(self) -> int | None:
        """The size of its groups, if it has any."""
        return None if self.shift is None else _group(self.shape[1], self.scale.shape[1])

    def weight(self) -> QuantisedWeight:
        """The matrix as it is kept, in the file's own pages."""
        shift = None if self.shift is None else self.shift.read()
        return QuantisedWeight(self.codes.read(), self.scale.read(), self.shape, shift, self.group)

    def read(self) -> Tensor:
        """The matrix in plain numbers, in fresh memory."""
        return self.weight().dequantize()

    def read_into(self, place: Tensor) -> None:
        """Read into `place`, which has this shape."""
        put(self.read(), place)


def split_name(name: str) -> tuple[str, str]:
    """The matrix that a tensor belongs to, and which of its pieces it is: "" where it is no scale and no shift."""
    for piece in (SCALE, SHIFT):
        if name.endswith(".weight" + piece):
            return name.removesuffix(piece), piece
    return name, ""


def with_quantised(tensors: Mapping[str, Stored], faults: list[str]) -> dict[str, Stored]:
    """Tensors by name, with the pieces of each quantised matrix as one; what is wrong with any goes to `faults`."""
    plain = dict(tensors)
    for matrix in sorted({base for name in tensors for base, piece in [split_name(name)] if piece}):
        pieces = {name: plain.pop(name) for piece in ("", SCALE, SHIFT) if (name := matrix + piece) in plain}
        try:
            plain[matrix] = StoredQuantised.of(matrix, pieces)
        except InputError as error:
            faults.append(f"{next(iter(pieces.values())).path.name}: {error}")
    return plain


def several_forms(parts: Sequence[Stored]) -> list[str]:
    """What is wrong with layers whose matrices, which kernels read together, are in several forms."""
    found = {part.form if isinstance(part, StoredQuantised) else str(part.dtype): part for part in parts}
    if len(found) == 1 or not any(isinstance(part, StoredQuantised) for part in parts):
        return []
    return ["; ".join(f"{part} is in {form}" for form, part in found.items()) + ": all layers must be in one form"]


def slots_of(name: str, shape: tuple[int, int], form: Form, group: int) -> list[Slot]:
    """The tensors that a matrix takes in a file. Raises InputError for a matrix of an odd width in 4 bits."""
    rows, columns = shape
    if form != "int4":
        return [Slot(name, shape, FP8 if form == "fp8" else torch.int8), Slot(name + SCALE, (rows,), torch.float32)]
    if columns % 2:
        raise InputError(f"{name} has {columns} columns, an odd number, which int4 cannot hold: use int8 or fp8")
    groups = (rows, -(-columns // group))
    codes = Slot(name, (rows, columns // 2), torch.uint8)
    return [codes, Slot(name + SCALE, groups, torch.float16), Slot(name + SHIFT, groups, torch.float16)]


def tensors_of(weight: QuantisedWeight) -> list[Tensor]:
    """What goes into those slots."""
    return [weight.codes, weight.scale] + ([] if weight.shift is None else [weight.shift])


def quantization_config(form: Form, outer: Form, group: int) -> dict[str, Any]:
    """What config.json says under `quantization_config`: the forms of layers, and of embedding and head."""
    its_group = group if form == "int4" else None
    return {"quant_method": METHOD, "format": form, "group": its_group, "embedding_and_head": outer}


def _group(columns: int, groups: int) -> int | None:
    """The size of the groups that so many columns are cut into; None if none would be."""
    return next((group for group in GROUPS if -(-columns // group) == groups), None)
