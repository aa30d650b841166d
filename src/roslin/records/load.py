"""Loading records: all of them sound, or an error that lists what is wrong."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from roslin.errors import InputError
from roslin.records.columns import Columns
from roslin.records.finding import Finding
from roslin.records.record import Record
from roslin.records.sources import find_sources, numbered_rows
from roslin.records.texts import TextRules

SHOWN_FAULTS = 20


def load(
    paths: Sequence[str | Path], *, mapping: Mapping[str, str] | None = None, keys: Sequence[str] = ()
) -> list[Record]:
    """Every record of files, folders, globs or hub datasets, in order; `mapping` names columns, `keys` must not occur.

    Raises InputError with all faults (the first SHOWN_FAULTS of them in full) when a record has an error; warnings are
    left to `check`.
    """
    rules = TextRules(Columns(mapping or {}), keys)
    records: list[Record] = []
    errors: list[Finding] = []
    for _, source, row in numbered_rows(find_sources(paths)):
        fields, faults = rules.judge(row)
        found = [Finding(source.name, row.line, fault.field, fault.code, fault.message) for fault in faults]
        errors += [finding for finding in found if finding.is_error]
        if fields:
            records.append(fields.record())
    if errors:
        raise InputError(_told(errors, paths))
    return records


def _told(errors: Sequence[Finding], paths: Sequence[str | Path]) -> str:
    count = len(errors)
    lines = [f"{count:,} error{'s' if count > 1 else ''} in the records:", *map(str, errors[:SHOWN_FAULTS])]
    if count > SHOWN_FAULTS:
        lines.append(f"… and {count - SHOWN_FAULTS:,} more.")
    command = "roslin records check " + " ".join(map(str, paths))
    return "\n".join([*lines, f"All of them, and a file without them: {command} --fix clean.jsonl"])
