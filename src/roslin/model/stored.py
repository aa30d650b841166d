"""Tensors as they lie in weight files: where each begins, so that its own pages can be taken for it.

Both formats keep raw little-endian numbers: safetensors behind a JSON header, torch's .bin in an uncompressed zip
archive. A tensor is mapped by its offset: nothing is read before it is touched, and nothing is copied.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import orjson
import torch
from torch import Tensor

from roslin.errors import InputError
from roslin.model.pages import Piece, map_piece, map_stacked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO, TypeGuard

# The names of safetensors' header, for the dtypes that weights and old mask buffers come in.
SAFETENSORS_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "F8_E4M3": torch.float8_e4m3fn,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
SAFETENSORS_NAMES = {dtype: name for name, dtype in SAFETENSORS_DTYPES.items()}
GIT_LFS_MARK = b"version https://git-lfs"


class Stored(Protocol):
    """One tensor in a file of whatever format. As a text it says where it is, for people."""

    @property
    def path(self) -> Path:
        """Its file."""
        ...

    @property
    def name(self) -> str:
        """Its name there."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that `read` gives."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that `read` gives."""
        ...

    def read(self) -> Tensor:
        """The tensor on the CPU. Writing to it does not change the file."""
        ...

    def read_into(self, place: Tensor) -> None:
        """Read into `place`, which has this shape, on whatever device and in whatever dtype."""
        ...


@dataclass(frozen=True)
class StoredTensor:
    """One tensor in a file: its name there, its shape and where its numbers are, in bytes from the file's start."""

    path: Path
    name: str
    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __str__(self) -> str:
        """Where it is, for people."""
        return f"{self.path.name}: {self.name}"

    @property
    def size(self) -> int:
        """Its bytes, where it is contiguous."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_contiguous(self) -> bool:
        """Whether its numbers lie row after row and nothing lies between them."""
        return self.stride == _contiguous(self.shape)

    def piece(self) -> Piece:
        """Where a contiguous tensor lies."""
        return Piece(self.path, self.offset, self.size)

    def read(self) -> Tensor:
        """The tensor in the file's own pages: they are read when touched, and copied when written to.

        It keeps its numbers if the file is removed or replaced by another of its name, not if the file itself is
        written to. Raises InputError if the file has become shorter than it was.
        """
        count = 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        memory, start = map_piece(Piece(self.path, self.offset, count * self.dtype.itemsize))
        if start % self.dtype.itemsize:
            numbers = torch.frombuffer(bytearray(memory[start:]), dtype=self.dtype)
        else:
            numbers = torch.frombuffer(memory, dtype=self.dtype, count=count, offset=start)
        return numbers.as_strided(self.shape, self.stride)

    def read_into(self, place: Tensor) -> None:
        """Read into `place`, which has this shape."""
        put(self.read(), place)


def put(tensor: Tensor, place: Tensor) -> None:
    """Copy into `place`. Numbers cross to another device as they are, in one go, and are rearranged there."""
    as_it_is = tensor.dtype == place.dtype and tensor.is_contiguous() and place.is_contiguous()
    place.copy_(tensor if as_it_is else tensor.to(place.device))


def read_pieces(pieces: Sequence[Piece], dtype: torch.dtype, shape: Sequence[int]) -> Tensor | None:
    """A tensor that lies in several pieces of files, in those files' own pages: see `StoredTensor.read`.

    The pages in which one piece ends and the next begins are copies. None where all would have to be copied.
    """
    found = map_stacked(pieces)
    if found is None or found[1] % dtype.itemsize:
        return None
    memory, start = found
    return torch.frombuffer(memory, dtype=dtype, count=math.prod(shape), offset=start).view(*shape)


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a .safetensors or .bin file by name. Raises InputError for a file that is cut short or is none."""
    with path.open("rb") as file:
        if file.read(len(GIT_LFS_MARK)) == GIT_LFS_MARK:
            raise InputError(f"{path.name} is only a pointer to the weights: run `git lfs pull`, or download the file")
    return _in_safetensors(path) if path.suffix == ".safetensors" else _in_zip(path)


def _in_safetensors(path: Path) -> dict[str, StoredTensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        if 8 + header_size > size:
            raise InputError(f"{path.name} is cut short or no safetensors file: {size:,} bytes do not hold its header")
        header = _header(path, file.read(header_size))
    start = 8 + header_size
    tensors = {name: _entry(path, start, name, entry) for name, entry in header.items()}
    end = max((tensor.offset + tensor.size for tensor in tensors.values()), default=start)
    if end > size:
        raise InputError(f"{path.name} is cut short: it has {size:,} of {end:,} bytes; download it again")
    return tensors


def _header(path: Path, text: bytes) -> dict[str, Any]:
    try:
        header = orjson.loads(text)
        return {name: dict(entry) for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, TypeError, AttributeError):
        raise InputError(f"{path.name} is no safetensors file: its header does not list tensors") from None


def _entry(path: Path, start: int, name: str, entry: Mapping[str, Any]) -> StoredTensor:
    dtype = SAFETENSORS_DTYPES.get(str(entry.get("dtype")))
    if dtype is None:
        raise InputError(f"{path.name}: {name} has the number format {entry.get('dtype')}, which Roslin does not read")
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not (_are_counts(shape) and _are_counts(offsets) and len(offsets) == 2):
        raise InputError(f"{path.name} is no safetensors file: its header gives {name} no shape or no place")
    begin, end = offsets
    tensor = StoredTensor(path, name, start + begin, dtype, tuple(shape), _contiguous(shape))
    if end - begin != tensor.size:
        raise InputError(f"{path.name}: {name} has {end - begin:,} bytes, not the {tensor.size:,} of its shape")
    return tensor


def _are_counts(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(isinstance(number, int) and number >= 0 for number in value)


def _in_zip(path: Path) -> dict[str, StoredTensor]:
    from torch._subclasses.fake_tensor import FakeTensorMode

    try:
        with zipfile.ZipFile(path) as archive:
            compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
    except zipfile.BadZipFile:
        raise InputError(
            f"{path.name} is cut short, or was not written by torch 1.6 or later; download it again"
        ) from None
    if compressed:
        raise InputError(f"{path.name} was compressed after torch wrote it; download it again")
    try:
        # Fake tensors have no memory, and torch notes in each where its numbers are in the file.
        with FakeTensorMode():
            state = torch.load(path, weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path.name} holds Python objects beside tensors. They could run code, so they are never loaded; look for "
            "the same weights as safetensors"
        ) from None
    except Exception as error:
        raise InputError(f"{path.name} cannot be read as torch weights: {str(error).splitlines()[0]}") from None
    if not isinstance(state, dict):
        raise InputError(f"{path.name} holds a {type(state).__name__}, not weights by name")
    return {str(name): _in_archive(path, str(name), x) for name, x in state.items() if isinstance(x, Tensor)}


def _in_archive(path: Path, name: str, tensor: Tensor) -> StoredTensor:
    if tensor.layout != torch.strided:
        raise InputError(f"{path.name}: {name} is a sparse tensor, which Roslin does not read")
    start = tensor.untyped_storage()._checkpoint_offset
    if start is None:
        raise InputError(f"{path.name} does not say where its tensors are; save it again with a current torch")
    offset = start + int(tensor.storage_offset()) * tensor.element_size()
    return StoredTensor(path, name, offset, tensor.dtype, tuple(tensor.shape), tensor.stride())


def _contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


@dataclass(frozen=True)
class Slot:
    """A tensor to write: its name, shape and dtype are in the header before its numbers exist."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Its bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_header(file: BinaryIO, slots: Sequence[Slot]) -> None:
    """Begin a safetensors file whose tensors are these, in this order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for slot in slots:
        span = [offset, offset + slot.size]
        header[slot.name] = {"dtype": SAFETENSORS_NAMES[slot.dtype], "shape": slot.shape, "data_offsets": span}
        offset += slot.size
    text = orjson.dumps(header)
    text += b" " * (-len(text) % 8)  # the numbers begin on a multiple of 8
    file.write(len(text).to_bytes(8, "little") + text)


def write_tensor(file: BinaryIO, tensor: Tensor) -> None:
    """Append one tensor's numbers."""
    file.write(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
