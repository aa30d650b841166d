"""Sources: the files, folders, globs and hub names that records are read from, and how each is opened."""

import glob
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from roslin.errors import InputError
from roslin.records.finding import Fault, encodable
from roslin.records.json_rows import BLOCK_BYTES, BYTE_ORDER_MARK, Row, array_rows, jsonl_rows, object_rows
from roslin.records.table_rows import arrow_rows, csv_rows, hub_rows, parquet_rows

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
LINE_SUFFIXES = (".jsonl", ".ndjson", ".json")
TABLE_SUFFIXES = (".csv", ".tsv")
COLUMN_SUFFIXES = (".parquet", ".arrow")
_HUB_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*(:[\w.-]+)?")
_NOT_RECORDS = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
"""Files that `datasets` writes beside the records."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Source:
    """One file, or one dataset of the hub."""

    name: str
    path: Path | None
    """None for a dataset of the hub."""

    def rows(self) -> Iterator[Row]:
        """Every row; a file that cannot be read to its end says so in a last row of its own."""
        last: Row | None = None
        try:
            for last in self._rows():
                yield last
        except PermissionError:
            yield _file_row("encoding", "You may not read the file. Change its rights (chmod u+r), or leave it out.")
        except (OSError, pa.ArrowException) as error:
            place = "behind this record" if last else "at all"
            message = f"The file cannot be read {place} ({_reason(error)}). Copy or make it again."
            yield _file_row("encoding", message, last.line if last else 1)
        else:
            if last is None:
                yield _file_row("json", "The file holds no records. Remove it, or write records into it.")

    def _rows(self) -> Iterator[Row]:
        if self.path is None:
            yield from hub_rows(self.name)
            return
        kind, compression = file_kind(self.path)
        if kind == ".parquet":
            yield from parquet_rows(self.path)
        elif kind == ".arrow":
            yield from arrow_rows(self.path)
        else:
            with _open(self.path, compression) as stream:
                yield from _text_rows(stream, kind)


def _text_rows(stream: io.BufferedReader, kind: str) -> Iterator[Row]:
    start = stream.peek(4096)
    if start.startswith(_UTF16):
        yield _file_row("encoding", "The file is UTF-16; nothing of it was read. Save it as UTF-8.")
    elif kind in TABLE_SUFFIXES:
        yield from csv_rows(stream, "," if kind == ".csv" else "\t")
    elif kind == ".json":
        yield from _json_rows(stream, start.removeprefix(BYTE_ORDER_MARK).lstrip())
    else:
        yield from jsonl_rows(stream)


def _json_rows(stream: io.BufferedReader, start: bytes) -> Iterator[Row]:
    """A .json file may hold an array, one object over several lines, or (often) one object a line."""
    first_line, newline, _ = start.partition(b"\n")
    is_array = start.startswith(b"[")
    if not is_array and (not newline or first_line.rstrip().endswith(b"}")):
        yield from jsonl_rows(stream)
        return
    content, error = _content(stream)
    yield from array_rows(content) if is_array else object_rows(content)
    if error:
        raise error


def _content(stream: io.BufferedReader) -> tuple[bytes, OSError | None]:
    """All that can be read, and what came in the way of reading on."""
    blocks: list[bytes] = []
    try:
        while block := stream.read1(BLOCK_BYTES):
            blocks.append(block)
    except OSError as error:
        return b"".join(blocks), error
    return b"".join(blocks), None


def _file_row(code: str, message: str, line: int = 1) -> Row:
    return Row(line, None, (Fault("", code, message, of_file=True),))


def _reason(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def _open(path: Path, compression: str | None) -> io.BufferedReader:
    if compression is None:
        return path.open("rb")
    return io.BufferedReader(_Decompressed(path, compression), buffer_size=1 << 16)


class _Decompressed(io.RawIOBase):
    """Decompressed bytes in small pieces: of a file that was cut off, all comes but the last piece."""

    PIECE = 4096

    def __init__(self, path: Path, compression: str) -> None:
        self._stream = pa.input_stream(str(path), compression=compression)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._stream.read(min(len(buffer), self.PIECE))
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._stream.close()
        super().close()


def file_kind(path: Path) -> tuple[str, str | None]:
    """The suffix that tells the format, and the compression: `a.jsonl.gz` is (".jsonl", "gzip")."""
    compression = COMPRESSIONS.get(path.suffix.lower())
    suffix = path.with_suffix("").suffix if compression else path.suffix
    return suffix.lower(), compression


def _is_known(path: Path) -> bool:
    kind, compression = file_kind(path)
    return kind in LINE_SUFFIXES + TABLE_SUFFIXES or (kind in COLUMN_SUFFIXES and compression is None)


def find_sources(paths: Sequence[str | Path]) -> list[Source]:
    """The files that `paths` stand for, folders and globs in order of name, each file once, however it is named.

    Raises InputError that names every path with nothing behind it.
    """
    found: dict[str | Path, Source] = {}
    faults: list[str] = []
    for path in paths:
        try:
            for source in _sources_of(path):
                found.setdefault(source.path.resolve() if source.path else source.name, source)
        except InputError as error:
            faults.append(str(error))
        except OSError as error:
            faults.append(f"{error.filename or path}: cannot be looked up ({error.strerror}).")
    if faults:
        raise InputError("\n".join(faults))
    return list(found.values())


def _sources_of(named: str | Path) -> list[Source]:
    if not str(named):
        raise InputError("A path is empty: name a file or folder (. is the folder you are in).")
    path = Path(named).expanduser()
    if path.is_dir():
        return _in_folder(path)
    if path.exists():
        return [_file(path)]
    if glob.has_magic(str(named)):
        return _in_glob(str(path))
    if _HUB_NAME.fullmatch(str(named)) and not _is_known(path):
        return [Source(str(named), None)]
    raise InputError(f"{named}: no such file or folder (looked from {Path.cwd()}).")


def _file(path: Path) -> Source:
    if not _is_known(path):
        raise InputError(f"{path}: the name does not tell the format. {_KNOWN}")
    return Source(encodable(str(path)), path)


_KNOWN = f"Known are {', '.join(LINE_SUFFIXES + TABLE_SUFFIXES)} (also with .gz or .zst), {', '.join(COLUMN_SUFFIXES)}."


def _in_folder(folder: Path) -> list[Source]:
    inside = sorted(path for path in _files_below(folder) if path.is_file() and not _is_hidden(path, folder))
    sources = [_file(path) for path in inside if _is_known(path) and path.name not in _NOT_RECORDS]
    if not sources:
        raise InputError(f"{folder}: the folder holds no file of records. {_KNOWN}")
    return sources


def _files_below(folder: Path) -> Iterator[Path]:
    """Raises OSError for a folder that may not be looked into: its records would be missing in silence."""

    def refuse(error: OSError) -> None:
        raise error

    for place, _, names in os.walk(folder, onerror=refuse):
        yield from (Path(place) / name for name in names)


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _in_glob(pattern: str) -> list[Source]:
    matches = sorted(Path(match) for match in glob.glob(pattern, recursive=True))  # noqa: PTH207  Path.glob takes no absolute pattern
    sources = [source for path in matches for source in (_in_folder(path) if path.is_dir() else [_file(path)])]
    if not sources:
        raise InputError(f"{pattern}: nothing matches (looked from {Path.cwd()}).")
    return sources


def numbered_rows(sources: Sequence[Source]) -> Iterator[tuple[int, Source, Row]]:
    """Every row with its number among all records, from 0; -1 where the row is no record but a fault of the file."""
    number = 0
    for source in sources:
        for row in source.rows():
            if row.value is None and all(fault.of_file for fault in row.faults):
                yield -1, source, row
            else:
                yield number, source, row
                number += 1
