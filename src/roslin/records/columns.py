"""Columns: which part of a row becomes which field of a record."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from roslin.errors import UsageError
from roslin.records.finding import Fault
from roslin.records.record import Record

FIELDS = ("instruction", "context", "response", "category")
REQUIRED = ("instruction", "response")
SHOWN_COLUMNS = 8
ALPACA = {"input": "context", "output": "response"}


class Fields(NamedTuple):
    """The four texts of a record, and the name that each has in its file."""

    instruction: str
    context: str
    response: str
    category: str
    names: Mapping[str, str]
    """Field of a record to column of the file, for the fields that the row has."""

    def record(self) -> Record:
        """The fields as a record; they are known to be texts, so nothing is validated again."""
        return Record.model_construct(
            instruction=self.instruction, context=self.context, response=self.response, category=self.category
        )


def parse_mapping(settings: list[str]) -> dict[str, str]:
    """`["question=instruction"]` as a mapping of columns to fields.

    Raises UsageError, naming all faults, for a setting of another form, a field that does not
    exist, or one that has two columns.
    """
    pairs = [setting.partition("=") for setting in settings]
    faults = [f"{column}{sign}{field}: write COLUMN=FIELD" for column, sign, field in pairs if not (column and field)]
    mapping = {column: field for column, sign, field in pairs if column and field}
    named = [column for column, _, _ in pairs]
    faults += [f"{column!r} is given to more than one field" for column in mapping if named.count(column) > 1]
    faults += mapping_faults(mapping)
    if faults:
        raise UsageError("--map: " + "; ".join(faults) + ".")
    return mapping


def mapping_faults(mapping: Mapping[str, str]) -> list[str]:
    """What is wrong with a mapping of columns to fields, in words."""
    unknown = [
        f"{field!r} is no field (there are {', '.join(FIELDS)})" for field in mapping.values() if field not in FIELDS
    ]
    fields = list(mapping.values())
    twice = sorted({field for field in fields if fields.count(field) > 1})
    return unknown + [f"{field!r} gets more than one column" for field in twice]


class Columns:
    """Turns the objects of a file into fields of records.

    A column of a field's own name is that field; `mapping` names others, with dots for nested ones (`data.question`).
    Rows with an `output` and no `response` are Alpaca's: `output` is the response and `input` the context.
    """

    def __init__(self, mapping: Mapping[str, str]) -> None:
        """Raises UsageError for a mapping that makes no sense."""
        if faults := mapping_faults(mapping):
            raise UsageError("Mapping of columns: " + "; ".join(faults) + ".")
        self._mapping = dict(mapping)
        self._unseen = dict(mapping)
        self._first: list[str] | None = None
        self.all_own = True
        """Whether all rows so far had a record's own columns and no others, as the files that Roslin writes have."""

    def plain(self, row: dict[str, Any]) -> bool:
        """Whether the row is read as it stands: Dolly's four columns, in any order."""
        return not self._mapping and row.keys() <= _FIELDS

    def names(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Field of a record to column of this row."""
        mapped = {field: column for column, field in self._mapping.items() if _has(row, column)}
        if self._unseen:
            self._first = self._first or list(row)
            self.all_own = self.all_own and row.keys() <= _FIELDS
            self._unseen = {column: field for column, field in self._unseen.items() if not _has(row, column)}
        names = {field: field for field in FIELDS if field in row and field not in self._mapping} | mapped
        if "output" in row and "response" not in names:
            names |= {field: column for column, field in ALPACA.items() if column in row and field not in names}
        return names

    def unseen(self) -> list[Fault]:
        """A fault for each column of the mapping that no row had, once all rows were read; none where none could be."""
        if self._first is None:
            return []
        there = ", ".join(self._first[:SHOWN_COLUMNS]) or "none"
        return [
            Fault(column, "missing-field", _UNSEEN.format(field, there), of_file=True)
            for column, field in self._unseen.items()
        ]

    def read(self, row: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str], list[Fault]]:
        """The values by field, the columns they came from, and faults of missing and unknown columns."""
        names = self.names(row)
        values = {field: _get(row, column) for field, column in names.items()}
        used = {column if column in row else column.partition(".")[0] for column in names.values()}
        faults = [_missing(field, names, row) for field in REQUIRED if values.get(field) is None]
        faults += [Fault(column, "unknown-field", _UNKNOWN) for column in row if column not in used]
        return values, names, faults


_FIELDS = frozenset(FIELDS)
_UNSEEN = "was named as the {} (--map), and no record has it. Name a column that is there; the first record has: {}."
_UNKNOWN = "Roslin has no such field and leaves it out. Remove it, or say what it is: --map COLUMN=FIELD."


def _has(row: Mapping[str, Any], column: str) -> bool:
    return column in row or ("." in column and _get(row, column) is not None)


def _get(row: Mapping[str, Any], column: str) -> Any:
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value


def _missing(field: str, names: Mapping[str, str], row: Mapping[str, Any]) -> Fault:
    if field in names:
        return Fault(names[field], "missing-field", "is null. Write the text, or remove the record.")
    told = "is missing. Add it to the record, or remove the record."
    used = set(names.values())
    nested = [f"{key}.{field}" for key, value in row.items() if isinstance(value, dict) and field in value]
    likely = nested + [column for column in row if column.lower() in _LIKELY[field] and column not in used]
    if likely:
        return Fault(field, "missing-field", f"{told} If {likely[0]!r} holds it: --map {likely[0]}={field}.")
    others = ", ".join([column for column in row if column not in used][:SHOWN_COLUMNS])
    hint = f" If another column ({others}) holds it: --map COLUMN={field}." if others else ""
    return Fault(field, "missing-field", told + hint)


_LIKELY = {
    "instruction": {"question", "prompt", "query", "task", "user"},
    "response": {"answer", "completion", "reply", "target", "assistant", "output"},
}
"""Names that other data sets give to the fields, for the hint only: nothing but Alpaca's is read unasked."""
