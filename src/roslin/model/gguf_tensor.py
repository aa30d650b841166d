"""One tensor of a GGUF file, unpacked when it is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize
from torch import Tensor

from roslin.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from roslin.gguf_file import GgufEntry

PLAIN = {
    GGMLQuantizationType.F32: torch.float32,
    GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
}
"""The packings that are none."""
CHUNK = 2**17
"""How many numbers are unpacked at once: as many as stay in a core's cache, twice as fast as a whole matrix."""


@dataclass(frozen=True)
class RowOrder:
    """Rows in another order than transformers': seen as a `grid`, two of its axes are swapped. -1 is what is left."""

    grid: tuple[int, int, int]
    swapped: tuple[int, int]

    @property
    def parts(self) -> int:
        """Into how many parts the rows divide."""
        return math.prod(size for size in self.grid if size > 0)

    def undo(self, tensor: Tensor) -> Tensor:
        """The tensor with its rows in transformers' order."""
        return tensor.view(*self.grid, *tensor.shape[1:]).transpose(*self.swapped).reshape(tensor.shape)


@dataclass(frozen=True)
class GgufTensor:
    """A tensor in a file: its name there, its shape, how its numbers are packed and its rows ordered, and its place."""

    path: Path
    name: str
    packing: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    order: RowOrder | None = None

    @classmethod
    def of(cls, entry: GgufEntry, order: RowOrder | None = None) -> GgufTensor:
        """The tensor of an entry. Raises InputError for a packing that cannot be undone, or one that does not fit."""
        if not all(entry.shape):
            raise InputError(f"{entry.name} has the shape {list(entry.shape)}, which holds no numbers")
        packing = _packing(entry)
        block, _ = GGML_QUANT_SIZES[packing]
        if math.prod(entry.shape[-1:]) % block:
            raise InputError(f"{entry.name} has rows of {entry.shape[-1]}, which {packing.name} packs by {block}")
        if order and (not entry.shape or entry.shape[0] % order.parts):
            raise InputError(f"{entry.name} has the shape {list(entry.shape)}, which does not divide by the heads")
        return cls(entry.path, entry.name, packing, entry.shape, entry.offset, order)

    def __str__(self) -> str:
        """Where it is, for people."""
        return f"{self.path.name}: {self.name}"

    @property
    def dtype(self) -> torch.dtype:
        """That of the file's numbers; float32 where they are packed."""
        return PLAIN.get(self.packing, torch.float32)

    @property
    def end(self) -> int:
        """Where it ends, in bytes from the file's start."""
        return self.offset + self._bytes(math.prod(self.shape))

    def read(self) -> Tensor:
        """The tensor, in fresh memory, in transformers' layout."""
        tensor = torch.empty(self.shape, dtype=self.dtype)
        self._fill(tensor)
        return tensor if self.order is None else self.order.undo(tensor)

    def read_into(self, place: Tensor) -> None:
        """Read into `place`, which has this shape: a chunk at a time, where device and layout allow."""
        if self.order is None and place.device.type == "cpu" and place.is_contiguous():
            self._fill(place)
        else:
            place.copy_(self.read())

    def _fill(self, place: Tensor) -> None:
        for part, chunk in zip(torch.split(place.view(-1), CHUNK), self._chunks(), strict=True):
            part.copy_(chunk)

    def _chunks(self) -> Iterator[Tensor]:
        left = math.prod(self.shape)
        with self.path.open("rb") as file:
            file.seek(self.offset)
            while left > 0:
                packed = bytearray(self._bytes(min(left, CHUNK)))
                if file.readinto(packed) < len(packed):
                    raise InputError(f"{self.path} was cut short while it was read.")
                yield self._unpack(packed)
                left -= CHUNK

    def _unpack(self, packed: bytearray) -> Tensor:
        if self.packing in PLAIN:
            return torch.frombuffer(packed, dtype=self.dtype)
        return torch.from_numpy(dequantize(np.frombuffer(packed, np.uint8)[None], self.packing)[0])

    def _bytes(self, count: int) -> int:
        block, size = GGML_QUANT_SIZES[self.packing]
        packed: int = count // block * size
        return packed


def _packing(entry: GgufEntry) -> GGMLQuantizationType:
    try:
        packing = GGMLQuantizationType(entry.packing)
    except ValueError:
        raise InputError(
            f"{entry.name} is packed in a way that Roslin does not know (number {entry.packing})"
        ) from None
    if not _can_unpack(packing):
        raise InputError(f"{entry.name} is packed as {packing.name}, which Roslin does not unpack")
    return packing


@cache
def _can_unpack(packing: GGMLQuantizationType) -> bool:
    _, size = GGML_QUANT_SIZES[packing]
    try:
        dequantize(np.zeros((1, size), np.uint8), packing)
    except NotImplementedError:
        return packing in PLAIN
    return True
