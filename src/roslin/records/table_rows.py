"""Rows of tables: CSV and TSV, Parquet, Arrow, and datasets from the Hugging Face hub."""

import csv
import io
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from roslin.errors import InputError, UsageError
from roslin.records.finding import Fault
from roslin.records.json_rows import BYTE_ORDER_MARK, LONGEST_LINE, Row, lines

ROWS_A_BATCH = 1024
LONGEST_ROW_LINES = 10_000
"""A quoted CSV cell that runs over more lines is taken for one whose closing quote is missing."""


def csv_rows(stream: io.BufferedIOBase, delimiter: str = ",") -> Iterator[Row]:
    """Rows of a CSV file by its header, each with the line it starts on.

    A byte order mark and CRLF line ends are part of how spreadsheets write CSV, and no fault; inside a cell of such a
    file CRLF is read as a newline. A quote that is never closed costs one line, not the rest of the file.
    """
    csv.field_size_limit(sys.maxsize)
    source = _CsvLines(lines(stream))
    header: list[str] | None = None
    while cells := source.next_row(delimiter):
        if isinstance(cells, Row):
            yield cells
        elif cells == [""]:
            continue
        elif header is None:
            header = [_replaced(cell) for cell in cells]
            if wrong := _wrong_delimiter(header, delimiter):
                yield from _of_file(source.start, header, "json", wrong)
                return
            bad = {_replaced(cell) for cell in cells if _BAD_BYTES.search(cell)}
            yield from _of_file(source.start, bad, "encoding", _NAME_NOT_UTF8)
            yield from _of_file(source.start, _repeated(header), "json", _SAME_NAME)
        else:
            yield _csv_row(source.start, header, cells)


def _wrong_delimiter(header: list[str], delimiter: str) -> str:
    """What to say of a header that is one cell for another program's delimiter: every row would be faulty."""
    others = [other for other in ",;\t|" if len(header) == 1 and other != delimiter and other in header[0]]
    return _DELIMITER.format(delimiter, others[0]) if others else ""


def _of_file(line: int, columns: Iterable[str], code: str, message: str) -> Iterator[Row]:
    for column in sorted(columns):
        yield Row(line, None, (Fault(column, code, message, of_file=True),))


def _repeated(names: list[str]) -> set[str]:
    return {name for name in names if names.count(name) > 1}


def _replaced(cell: str) -> str:
    return cell.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _csv_row(line: int, header: list[str], cells: list[str]) -> Row:
    named = dict(zip(header, cells, strict=False))
    value = {name: _replaced(cell) for name, cell in named.items()}
    bad = [name for name, cell in named.items() if _BAD_BYTES.search(cell)]
    faults = [Fault(column, "encoding", _NOT_UTF8) for column in bad]
    if len(cells) != len(header):
        faults.append(Fault("", "json", _CELLS.format(len(cells), len(header))))
    return Row(line, value, tuple(faults), _replaced("\t".join(cells)) if faults else "")


_BAD_BYTES = re.compile("[\udc80-\udcff]")
_NOT_UTF8 = "holds bytes that are not UTF-8. Save the file as UTF-8."
_NAME_NOT_UTF8 = "The name of this column holds bytes that are not UTF-8. Save the file as UTF-8."
_DELIMITER = (
    "This is the only column: cells are looked for between {!r}, and here {!r} seems to stand between them. "
    "Nothing of the file was read. Save it as .csv with commas or as .tsv with tabs."
)
_SAME_NAME = "Two columns have this name, and only the last would be read. Rename one."
_CELLS = "The row has {} cells and the header {}. Put quotes around cells that hold commas, quotes or newlines."
_UNCLOSED = (
    "Not a well-formed CSV row ({}). Close the quotes, and double those inside a cell; "
    "reading went on at the next line."
)


class _CsvLines:
    """Feeds lines to the csv reader, row by row, and can go back to the line behind a row that fails."""

    def __init__(self, numbered: Iterator[tuple[int, bytes]]) -> None:
        self._numbered = numbered
        self._waiting: list[tuple[int, str]] = []
        self._taken: list[tuple[int, str]] = []
        self.start = 0

    def next_row(self, delimiter: str) -> list[str] | Row | None:
        """The cells of the next row, [""] for a blank one, a Row that says what is wrong, or None at the end."""
        self._taken = []
        try:
            cells = next(csv.reader(self._feed(), delimiter=delimiter, strict=True), None)
        except csv.Error as error:
            return self._give_up(str(error))
        self.start = self._taken[0][0] if self._taken else self.start
        if cells is None:
            return None
        return cells or [""]

    def _feed(self) -> Iterator[str]:
        while (line := self._next_line()) is not None:
            self._taken.append(line)
            if len(line[1]) > LONGEST_LINE:
                raise csv.Error(f"a line longer than {LONGEST_LINE >> 20} MiB")
            if len(self._taken) > LONGEST_ROW_LINES:
                raise csv.Error(f"a cell runs over more than {LONGEST_ROW_LINES:,} lines")
            yield line[1] + "\n"

    def _next_line(self) -> tuple[int, str] | None:
        if self._waiting:
            return self._waiting.pop()
        number, line = next(self._numbered, (0, b""))
        if number == 0:
            return None
        if number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        return number, line.removesuffix(b"\r").decode("utf-8", "surrogateescape")

    def _give_up(self, reason: str) -> Row:
        first, *others = self._taken
        self._waiting.extend(reversed(others))
        shown = first[1].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        return Row(first[0], None, (Fault("", "json", _UNCLOSED.format(reason)),), shown)


def parquet_rows(path: Path) -> Iterator[Row]:
    """Rows of a Parquet file; `line` is the number of the row, from 1."""
    with pa.parquet.ParquetFile(path) as file:
        yield from _of_file(1, _repeated(file.schema_arrow.names), "json", _SAME_NAME)
        yield from _batch_rows(file.iter_batches(batch_size=ROWS_A_BATCH))


def arrow_rows(path: Path) -> Iterator[Row]:
    """Rows of an Arrow file, of the streaming or the random-access form; `line` is the number of the row, from 1."""
    with pa.memory_map(str(path)) as source:
        try:
            file: Any = pa.ipc.open_stream(source)
            batches: Iterable[Any] = file
        except pa.ArrowInvalid:
            file = pa.ipc.open_file(source)
            batches = (file.get_batch(i) for i in range(file.num_record_batches))
        yield from _of_file(1, _repeated(file.schema.names), "json", _SAME_NAME)
        yield from _batch_rows(map(_whole, batches))


def _whole(batch: Any) -> Any:
    """The batch, if its texts lie where it says: Arrow does not look, and would read memory that is not the file's."""
    for column in batch.columns:
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            if "UTF8" not in str(error):  # told with its row when that is read
                raise
    return batch


def hub_rows(name: str) -> Iterator[Row]:
    """Rows of a dataset named `owner/name`, or `owner/name:split`, through `datasets`; `line` is the row, from 1.

    Without a split it is `train`, or the only one there is. Raises UsageError when `datasets` is not installed or the
    split must be named, InputError when there is no such dataset.
    """
    name, _, split = name.partition(":")
    try:
        import datasets
    except ImportError:
        raise UsageError(
            f"{name}: no such file or folder; and to read it from the hub, the package `datasets` is needed: "
            "pip install 'roslin[hub]'"
        ) from None
    try:
        splits = datasets.load_dataset(name)
    except Exception as error:  # of many kinds: from the hub's client, from the network, from the loader
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"{name}: no such file or folder here, and as a dataset of the hub it cannot be read: {reason}"
        ) from None
    chosen = split or ("train" if "train" in splits else next(iter(splits)) if len(splits) == 1 else "")
    if chosen not in splits:
        raise UsageError(f"{name}: name one of its splits ({', '.join(splits)}), such as {name}:{next(iter(splits))}.")
    table = splits[chosen].with_format("arrow")
    yield from _batch_rows(batch for whole in table.iter(ROWS_A_BATCH) for batch in whole.to_batches())


def _batch_rows(batches: Iterable[Any]) -> Iterator[Row]:
    number = 0
    for batch in batches:
        for row in _dictionaries(batch):
            number += 1
            yield row._replace(line=number)


def _dictionaries(batch: Any) -> Iterator[Row]:
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError):  # a text that is not UTF-8; a time that Python's own types do not reach
        yield from _one_by_one(batch)
        return
    for row in rows:
        yield Row(0, row)


def _one_by_one(batch: Any) -> Iterator[Row]:
    """Rows of a batch with values that Python cannot take as they are: Arrow does not check texts that it stores."""
    columns = [[_value(scalar) for scalar in _plain(column)] for column in batch.columns]
    for found in zip(*columns, strict=True):
        named = list(zip(batch.schema.names, found, strict=True))
        bad = tuple(Fault(name, "encoding", _NOT_UTF8) for name, (_, is_text) in named if not is_text)
        yield Row(0, {name: value for name, (value, _) in named}, bad)


def _plain(column: Any) -> Any:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _value(scalar: Any) -> tuple[Any, bool]:
    """A value, and whether its texts are UTF-8. A time out of range is its number; a list with bad bytes is None."""
    try:
        return scalar.as_py(), True
    except UnicodeDecodeError:
        is_text = isinstance(scalar, pa.StringScalar | pa.LargeStringScalar | pa.StringViewScalar)
        return scalar.as_buffer().to_pybytes().decode("utf-8", "replace") if is_text else None, False
    except (ValueError, OverflowError):
        return getattr(scalar, "value", None), True
