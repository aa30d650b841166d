"""A GGUF file as a container: what it says by key, and where its tensors lie.

The format is the one in ggml's docs/gguf.md, versions 2 and 3. The `gguf` package has a reader too, which takes two
seconds for a vocabulary of fifty thousand tokens, and does not say what is wrong with a file.
"""

from __future__ import annotations

import mmap
import re
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from roslin.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

T = TypeVar("T")

MAGIC = b"GGUF"
VERSIONS = (2, 3)
GIT_LFS_MARK = b"version https://git-lfs"
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""The format's kinds of numbers, as `struct` spells them."""
TEXT, ARRAY = 8, 9
MOST_AXES = 4
"""ggml's tensors have no more."""
ALIGNMENT = 32
PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
"""How llama.cpp names the parts of a split file."""


@dataclass(frozen=True)
class GgufEntry:
    """One tensor: its name, ggml's number for how its numbers are packed, its shape in torch's order, its place."""

    path: Path
    name: str
    packing: int
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class GgufFile:
    """What a file says, by key, and its tensors; of a split file, all parts together."""

    path: Path
    values: Mapping[str, Any]
    entries: tuple[GgufEntry, ...]

    def value(self, key: str, kind: type[T], default: T | None = None) -> T:
        """The value under `key`, which must be of this kind. Raises InputError if it is not, or missing."""
        found = self.values.get(key, default)
        if type(found) is kind:
            return found
        problem = "is missing" if found is None else f"is {_shown(found)}"
        raise InputError(f"{self.path}: {key} {problem}; it must be of the type {kind.__name__}.")


def is_gguf(path: Path) -> bool:
    """Whether a path is a GGUF file, by its name or by how it begins."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return path.suffix.lower() == ".gguf" or file.read(len(MAGIC)) == MAGIC


def open_gguf(path: Path) -> GgufFile:
    """Read a file's keys and its list of tensors, but no tensor.

    Raises InputError for a file that is missing, is none of the format, or is cut short; and for a part of a split
    file that is not the first, or whose siblings are missing.
    """
    first = _read(path)
    count = first.values.get("split.count", 1)
    if count <= 1:
        return first
    parts = [_read(part) for part in _other_parts(first, count)]
    return GgufFile(path, first.values, tuple(entry for file in (first, *parts) for entry in file.entries))


def _read(path: Path) -> GgufFile:
    try:
        with path.open("rb") as file:
            _check_beginning(path, file.read(64))
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Cursor(path, data).file()
    except (struct.error, EOFError, OverflowError):
        raise InputError(f"{path} is cut short or damaged: its header does not fit it. Download it again.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None


def _check_beginning(path: Path, start: bytes) -> None:
    if start.startswith(GIT_LFS_MARK):
        raise InputError(f"{path} is only a pointer to the model: run `git lfs pull`, or download the file.")
    if not start.startswith(MAGIC):
        raise InputError(f"{path} is no GGUF file: it does not begin with the letters GGUF.")
    (version,) = struct.unpack_from("<I", start, len(MAGIC))
    if version & 0xFFFF == 0:
        raise InputError(f"{path} was written for a big-endian machine; get it for a little-endian one.")
    if version not in VERSIONS:
        known = " and ".join(map(str, VERSIONS))
        raise InputError(f"{path} is of version {version} of the GGUF format; Roslin reads {known}. Convert it anew.")


def _other_parts(first: GgufFile, count: int) -> list[Path]:
    found = PART.search(first.path.name)
    if not found or int(found[2]) != count or int(found[1]) != first.values.get("split.no", 0) + 1:
        raise InputError(f"{first.path} is one of {count} parts; its name must say so as -00001-of-{count:05d}.gguf.")
    stem = first.path.name[: found.start()]
    paths = [first.path.with_name(f"{stem}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]
    if int(found[1]) != 1:
        raise InputError(f"{first.path} is one of {count} parts; give the first, {paths[0].name}.")
    if missing := [path.name for path in paths if not path.is_file()]:
        raise InputError(f"{first.path} is one of {count} parts, and some are missing: {', '.join(missing)}.")
    return paths[1:]


class _Cursor:
    """Reads a file's header from its start on."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path = path
        self._data = data
        self._at = len(MAGIC)

    def file(self) -> GgufFile:
        _, entry_count, value_count = self._numbers("IQQ")
        values = {}
        for _ in range(value_count):
            key = self._text()
            values[key] = self._value(key, *self._numbers("I"))
        entries = [self._entry() for _ in range(entry_count)]
        alignment = values.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise InputError(f"{self._path}: general.alignment is {alignment!r}; it must be a whole number above 0.")
        start = -(-self._at // alignment) * alignment
        return GgufFile(self._path, values, tuple(replace(entry, offset=start + entry.offset) for entry in entries))

    def _value(self, key: str, kind: int) -> Any:
        if kind in NUMBERS:
            return self._numbers(NUMBERS[kind])[0]
        if kind == TEXT:
            return self._text()
        if kind != ARRAY:
            raise InputError(f"{self._path}: {key} is of an unknown kind ({kind}). The file is damaged: get it anew.")
        inner, count = self._numbers("IQ")
        if inner == TEXT:
            return self._texts(count)
        if inner not in NUMBERS:
            raise InputError(f"{self._path}: {key} is an array of an unknown kind ({inner}).")
        return list(self._numbers(f"{count}{NUMBERS[inner]}"))

    def _entry(self) -> GgufEntry:
        """The next tensor, its offset counted from where the tensors begin."""
        name = self._text()
        (axes,) = self._numbers("I")
        if axes > MOST_AXES:
            raise InputError(f"{self._path}: {name} has {axes} axes; the format allows {MOST_AXES}.")
        shape = self._numbers(f"{axes}Q")
        packing, offset = self._numbers("IQ")
        return GgufEntry(self._path, name, packing, shape[::-1], offset)

    def _numbers(self, kinds: str) -> tuple[Any, ...]:
        layout = struct.Struct("<" + kinds)
        found = layout.unpack_from(self._data, self._at)
        self._at += layout.size
        return found

    def _text(self) -> str:
        return self._texts(1)[0]

    def _texts(self, count: int) -> list[str]:
        """The hot loop: a vocabulary and its merges are a hundred thousand of them."""
        data, at, length = self._data, self._at, struct.Struct("<Q").unpack_from
        texts = []
        for _ in range(count):
            begin = at + 8
            at = begin + length(data, at)[0]
            texts.append(str(data[begin:at], "utf-8", "replace"))
        if at > len(data):
            raise EOFError
        self._at = at
        return texts


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
