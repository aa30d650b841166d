"""Loading records: all of them sound, or an error that lists what is wrong."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from roslin.errors import InputError
from roslin.records.columns import Columns, Fields
from roslin.records.finding import Finding, errors_told
from roslin.records.record import Record
from roslin.records.sources import Source, find_sources, numbered_rows
from roslin.records.texts import TextRules


def load(
    paths: Sequence[str | Path], *, mapping: Mapping[str, str] | None = None, keys: Sequence[str] = ()
) -> list[Record]:
    """Every record of files, folders, globs or hub datasets, in order; `mapping` names columns, `keys` must not occur.

    Raises InputError with all faults (the first SHOWN_ERRORS of them in full) when a record has an error; warnings are
    left to `check`.
    """
    columns = Columns(mapping or {})
    rules = TextRules(columns, keys)
    sources = find_sources(paths)
    errors: list[Finding] = []
    records = [fields.record() for _, fields in read(sources, rules, errors)]
    if not columns.all_own:  # a part that Roslin wrote needs no mapping, even where the rest of the records does
        errors[:0] = [fault.at(sources[0].name, 1) for fault in columns.unseen()]
    if errors:
        raise InputError(errors_told(errors, paths))
    return records


def read(sources: Sequence[Source], rules: TextRules, errors: list[Finding]) -> Iterator[tuple[str, Fields]]:
    """Place (file:line) and fields of every row whose fields are texts; every error is added to `errors`."""
    for _, source, row in numbered_rows(sources):
        fields, faults = rules.judge(row)
        found = (fault.at(source.name, row.line) for fault in faults)
        errors += [finding for finding in found if finding.is_error]
        if fields:
            yield f"{source.name}:{row.line}", fields
