"""Findings: what a check has to say about records, and the report that gathers it."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

ERRORS = (
    "json",
    "encoding",
    "missing-field",
    "empty-field",
    "wrong-type",
    "control-character",
    "prompt-key",
    "leak",
)
"""Codes that make a record unfit for training."""

WARNINGS = ("too-long", "unknown-field", "unknown-category", "duplicate", "near-duplicate", "privacy")
"""Codes that a person should know of; `privacy` is looked for only when asked."""


class Fault(NamedTuple):
    """Something wrong with one row, before it is known where the row stands."""

    field: str
    """The field's name in its file; "" for the row as a whole."""
    code: str
    message: str
    """What is wrong and how to mend it."""
    of_file: bool = False
    """Whether the fault lies in the file around the row: reading the row mends it (a byte order mark)."""

    def at(self, file: str, line: int) -> "Finding":
        """The fault with its place."""
        return Finding(file, line, self.field, self.code, self.message)


class Finding(NamedTuple):
    """A fault with its place. `line` counts from 1: the line where a record starts, or its row in Parquet and Arrow."""

    file: str
    line: int
    field: str
    code: str
    message: str

    @property
    def is_error(self) -> bool:
        """Whether the code is an error."""
        return self.code in _ERRORS

    def __str__(self) -> str:
        """One line, as editors and terminals link it; characters that would steer the terminal are written out."""
        what = f"{self.field}: {self.message}" if self.field else self.message
        told = f"{self.file}:{self.line}: {what} [{self.code}]"
        return told if told.isprintable() else "".join(map(_printable, told))


def _printable(character: str) -> str:
    return character if character.isprintable() else f"\\u{ord(character):04x}"


def encodable(name: str) -> str:
    """A name that can be printed and written as JSON: bytes of a file's name that are not UTF-8 are written out."""
    return name.encode("utf-8", "backslashreplace").decode()


_ERRORS = frozenset(ERRORS)


SHOWN_ERRORS = 20


def errors_told(errors: Sequence[Finding], paths: Sequence[object]) -> str:
    """Why records cannot be used: how many errors there are, the first SHOWN_ERRORS of them, and how to get on."""
    count = len(errors)
    lines = [f"{count:,} error{'s' if count > 1 else ''} in the records:", *map(str, errors[:SHOWN_ERRORS])]
    if count > SHOWN_ERRORS:
        lines.append(f"… and {count - SHOWN_ERRORS:,} more.")
    command = "roslin records check " + shlex.join(map(str, paths))
    return "\n".join([*lines, f"All of them, and a file without them: {command} --fix clean.jsonl"])


@dataclass(frozen=True)
class CheckReport:
    """All that a check found, in the order of the files and lines."""

    records: int
    """How many records were read, faulty ones included; blank lines are none."""
    errors: Sequence[Finding]
    warnings: Sequence[Finding]
    error_records: Sequence[int] = ()
    """For each error, the number of its record (from 0, in reading order), or -1 where it is of a file."""
    warning_records: Sequence[int] = ()
    """The same for each warning."""
    privacy: Mapping[str, int] = field(default_factory=dict)
    """Records that hold each kind of personal or secret matter; empty unless it was looked for."""

    def passes(self, *, strict: bool = False) -> bool:
        """Whether nothing stands in the way of training; `strict` counts warnings too."""
        return not self.errors and not (strict and self.warnings)

    @property
    def touched(self) -> int:
        """How many records have a finding."""
        numbers = np.unique(np.concatenate([np.asarray(self.error_records), np.asarray(self.warning_records)]))
        return int((numbers >= 0).sum())

    def rejected(self, *, strict: bool = False) -> dict[int, list[Finding]]:
        """The records that do not pass, by number, and why; `strict` counts warnings too."""
        reasons: dict[int, list[Finding]] = {}
        kinds = [(self.error_records, self.errors), (self.warning_records, self.warnings if strict else ())]
        for numbers, findings in kinds:
            for number, finding in zip(numbers, findings, strict=False):
                if number >= 0:
                    reasons.setdefault(number, []).append(finding)
        return reasons

    def counts(self) -> Counter[str]:
        """How many findings there are of each code."""
        return Counter(finding.code for finding in (*self.errors, *self.warnings))

    def as_object(self) -> dict[str, Any]:
        """The report as `--json` prints it."""
        return {
            "records": self.records,
            "errors": [finding._asdict() for finding in self.errors],
            "warnings": [finding._asdict() for finding in self.warnings],
        }
