"""Writing records: whole or not at all."""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson
import pyarrow as pa

from roslin.errors import MachineError, UsageError
from roslin.records.columns import FIELDS, Columns, Fields
from roslin.records.finding import CheckReport
from roslin.records.json_rows import Row
from roslin.records.record import Record
from roslin.records.sources import COMPRESSIONS, file_kind, find_sources, numbered_rows
from roslin.records.texts import TextRules


def write_jsonl(records: Iterable[Record], path: str | Path) -> int:
    """Write records, one JSON object a line, and say how many; `.gz` and `.zst` at the end of the name compress.

    The file appears under its name when it is complete, never before. Raises UsageError for a name of another format,
    MachineError when the disk is full or the folder cannot be written.
    """
    count = 0
    with atomic_jsonl(Path(path)) as write:
        for record in records:
            write(record_object(record))
            count += 1
    return count


def write_parts(parts: Mapping[Path, Sequence[Record]]) -> None:
    """Write several files of records, as `write_jsonl` does; none takes its name before all are complete."""
    with ExitStack() as files:
        writers = [files.enter_context(atomic_jsonl(path)) for path in parts]
        for write, records in zip(writers, parts.values(), strict=True):
            for record in records:
                write(record_object(record))


def record_object(record: Record | Fields) -> dict[str, str]:
    """The four fields of a record by name."""
    return {field: getattr(record, field) for field in FIELDS}


class JsonLines:
    """Writes one object a line to the stream of a file."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        """Write to `stream`; `path` is what an error names."""
        self._stream = stream
        self._path = path

    def __call__(self, value: Mapping[str, Any]) -> None:
        """Write one line. Raises MachineError when the disk is full."""
        line = orjson.dumps(value, default=str, option=orjson.OPT_APPEND_NEWLINE)
        try:
            self._stream.write(line)
        except OSError as error:
            raise _unwritable(self._path, error) from None


def _unwritable(path: Path, error: OSError) -> MachineError:
    return MachineError(f"{path} cannot be written ({error.strerror or error}). Nothing was changed.")


@contextmanager
def atomic_jsonl(path: Path) -> Iterator[JsonLines]:
    """A writer whose file takes its name only when the block ends well; else what stood there stays."""
    require_jsonl(path)
    compression = COMPRESSIONS.get(path.suffix.lower())
    unfinished: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        unfinished = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            if compression:
                with pa.CompressedOutputStream(stream, compression) as compressed:
                    yield JsonLines(compressed, path)
            else:
                yield JsonLines(stream, path)
        _give_name(unfinished, path)
        unfinished = None
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        if unfinished:
            unfinished.unlink(missing_ok=True)


def _give_name(unfinished: Path, path: Path) -> None:
    """Rename after the content is on the disk; the file gets the rights that a new file of this process has."""
    with unfinished.open("rb") as stream:
        os.fsync(stream.fileno())
    mask = os.umask(0)
    os.umask(mask)
    unfinished.chmod(0o666 & ~mask)
    unfinished.replace(path)


def require_jsonl(path: Path) -> None:
    """Raise UsageError for the name of a file that would not be JSON lines."""
    if file_kind(path)[0] != ".jsonl":
        raise UsageError(
            f"{path}: records are written as JSON lines; give a name that ends in .jsonl, .jsonl.gz or .jsonl.zst."
        )


def require_other_files(inputs: Sequence[str | Path], outputs: Sequence[Path]) -> None:
    """Raise UsageError when an output would overwrite an input or another output."""
    read = {source.path.resolve() for source in find_sources(inputs) if source.path}
    for place, output in enumerate(outputs):
        require_jsonl(output)
        if output.resolve() in read:
            raise UsageError(f"{output} is also an input; write to another file.")
        if output.resolve() in {other.resolve() for other in outputs[:place]}:
            raise UsageError(f"{output} is named for two outputs; name two files.")


@dataclass(frozen=True)
class Fixed:
    """What `write_passing` wrote."""

    passing: int
    rejected: int
    rejects_path: Path


def rejects_path(out: Path) -> Path:
    """Where the rejects of `clean.jsonl` go: `clean.rejects.jsonl`."""
    kind = file_kind(out)
    stem = out.name[: -len(out.suffix)] if kind[1] else out.name
    return out.with_name(f"{Path(stem).stem}.rejects.jsonl")


def require_outputs(inputs: Sequence[str | Path], out: Path) -> None:
    """Raise UsageError when what `write_passing` writes would overwrite an input, or is not named as JSON lines.

    A held-out file that the check reads is an input too.
    """
    require_other_files(inputs, [out, rejects_path(out)])


def write_passing(
    paths: Sequence[str | Path], mapping: Mapping[str, str], report: CheckReport, out: Path, *, strict: bool = False
) -> Fixed:
    """Write the records that passed a check, and beside them the others with the reasons; `strict`: no warnings either.

    A reject is one line: `file`, `line`, `reasons` (field, code, message), and the `record` as it was read, or its
    `text` where it could not be read.
    """
    require_outputs(paths, out)
    reasons = report.rejected(strict=strict)
    rules = TextRules(Columns(mapping), ())
    with atomic_jsonl(out) as write, atomic_jsonl(rejects_path(out)) as write_reject:
        for number, source, row in numbered_rows(find_sources(paths)):
            if number in reasons:
                told = [{"field": f.field, "code": f.code, "message": f.message} for f in reasons[number]]
                write_reject({"file": source.name, "line": row.line, "reasons": told, **_content(row)})
            elif number >= 0 and (fields := rules.judge(row)[0]):
                write(record_object(fields))
    return Fixed(report.records - len(reasons), len(reasons), rejects_path(out))


def _content(row: Row) -> dict[str, Any]:
    return {"text": row.text} if row.text or not isinstance(row.value, dict) else {"record": row.value}
