"""Checking records: every row against every rule, in one streaming pass, with what needs all rows said at the end.

What is no fault: CRLF at the end of lines (white space in JSON, the custom in CSV; inside a CSV cell of such a file it
is read as a newline), blank lines, a byte order mark in CSV (spreadsheets write it), a null or empty context or
category. What is: a byte order mark in JSON (told once, for the file; it rejects no record), and a carriage return
inside a text.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern

import numpy as np

from roslin.errors import InputError
from roslin.records.columns import Columns, Fields
from roslin.records.content import Digests, content_digest, prompt_digest
from roslin.records.finding import CheckReport, Fault, Finding, errors_told
from roslin.records.load import read
from roslin.records.near import NearDuplicates
from roslin.records.privacy import private_matter
from roslin.records.record import Record
from roslin.records.sources import Source, find_sources, numbered_rows
from roslin.records.texts import TextRules

CountTokens = Callable[[Sequence[Record]], Sequence[int]]
"""Tokens of each record's whole training text, prompt and keys included."""

PROGRESS_EVERY = 2048
COUNT_AT_ONCE = 512


@dataclass(frozen=True)
class CheckOptions:
    """What to look for, beyond the form of every record."""

    mapping: Mapping[str, str] = field(default_factory=dict)
    """Columns of the files to fields of a record."""
    keys: Sequence[str] = ()
    """Texts that no field may hold."""
    count_tokens: CountTokens | None = None
    """Without it, no record is too long."""
    max_length: int = 2048
    """Records of so many tokens or more are too long: their end key would be cut."""
    held_out: Sequence[str | Path] = ()
    """Files whose questions must not be among the records."""
    near: bool = True
    """Whether to look for near-duplicates."""
    privacy: bool = False
    """Whether to look for personal and secret matter."""


def check(
    paths: Sequence[str | Path],
    options: CheckOptions = CheckOptions(),
    on_progress: Callable[[int], None] | None = None,
) -> CheckReport:
    """Check every record of files, folders, globs or hub datasets; memory stays small however long the files are.

    `on_progress` is told now and then how many records have been read. Raises InputError for paths with nothing behind
    them and for held-out files that are not sound; all else is in the report.
    """
    sources = find_sources(paths)
    with _Check(sources, options) as running:
        running.take_held_out(options.held_out)
        for number, source, row in numbered_rows(sources):
            fields, faults = running.rules.judge(row)
            running.take(number, source, row.line, fields, faults)
            if on_progress and number % PROGRESS_EVERY == 0:
                on_progress(number + 1)
        return running.report()


class _Check:
    """One check under way: what was found so far, and what is remembered of each record."""

    def __init__(self, sources: Sequence[Source], options: CheckOptions) -> None:
        self._columns = Columns(options.mapping)
        self.rules = TextRules(self._columns, options.keys)
        self._options = options
        self._sources = sources
        self._errors: list[Finding] = []
        self._warnings: list[Finding] = []
        self._error_records, self._warning_records = array("q"), array("q")
        self._places = _Places()
        self._digests = Digests()
        self._held_out: dict[bytes, str] = {}
        self._held_out_places: list[str] = []
        self._near = NearDuplicates() if options.near else None
        self._lengths = _Lengths(options.count_tokens, options.max_length) if options.count_tokens else None
        self._privacy: Counter[str] = Counter()

    def __enter__(self) -> "_Check":
        self._open = ExitStack()
        if self._near:
            self._open.enter_context(self._near)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def take_held_out(self, paths: Sequence[str | Path]) -> None:
        errors: list[Finding] = []
        rules = TextRules(Columns(self._options.mapping), ())
        for place, fields in read(find_sources(paths), rules, errors):
            self._held_out.setdefault(prompt_digest(fields.instruction, fields.context), place)
            self._held_out_places.append(place)
            if self._near:
                self._near.add(-len(self._held_out_places), *fields[:3])
        if errors:
            raise InputError(errors_told(errors, paths))

    def take(self, number: int, source: Source, line: int, fields: Fields | None, faults: Iterable[Fault]) -> None:
        """One row: its faults, and what is remembered of it."""
        if number >= 0:
            self._places.add(source.name, line)
        for fault in faults:
            told = fault._replace(message=intern(fault.message))  # a fault of every record costs its text once
            self._add(-1 if fault.of_file else number, told.at(source.name, line))
        if fields is None or not (fields.instruction or fields.response):
            return
        self._digests.add(number, content_digest(fields))
        if self._near:
            self._near.add(number, *fields[:3])
        if self._lengths:
            self._add_too_long(self._lengths.take(number, fields))
        if self._held_out and (place := self._held_out.get(prompt_digest(fields.instruction, fields.context))):
            self._tell(number, fields.names.get("instruction", "instruction"), "leak", _LEAK.format(place))
        if self._options.privacy:
            self._add_private(number, fields)

    def report(self) -> CheckReport:
        """Everything, in the order of the records; what is wrong with the mapping first."""
        for fault in self._columns.unseen():
            self._errors.insert(0, fault.at(self._sources[0].name, 1))
            self._error_records.insert(0, -1)
        if self._lengths:
            self._add_too_long(self._lengths.rest())
        duplicates = self._add_duplicates()
        if self._near:
            self._add_near_duplicates(self._near, duplicates)
        errors, error_records = _in_order(self._errors, self._error_records)
        warnings, warning_records = _in_order(self._warnings, self._warning_records)
        return CheckReport(len(self._places), errors, warnings, error_records, warning_records, dict(self._privacy))

    def _add(self, number: int, finding: Finding) -> None:
        if finding.is_error:
            self._errors.append(finding)
            self._error_records.append(number)
        else:
            self._warnings.append(finding)
            self._warning_records.append(number)

    def _tell(self, number: int, field: str, code: str, message: str) -> None:
        file, line = self._places[number]
        self._add(number, Finding(file, line, field, code, message))

    def _add_too_long(self, found: Iterable[tuple[int, int]]) -> None:
        for number, length in found:
            self._tell(number, "", "too-long", _TOO_LONG.format(length, self._options.max_length))

    def _add_private(self, number: int, fields: Fields) -> None:
        kinds = set()
        for name, text in zip(("instruction", "context", "response"), fields[:3], strict=True):
            for matter in private_matter(text):
                kinds.add(matter.kind)
                self._tell(number, fields.names.get(name, name), "privacy", matter.message)
        self._privacy.update(kinds)

    def _add_duplicates(self) -> set[int]:
        found = self._digests.duplicates()
        for number, first in found:
            self._tell(number, "", "duplicate", _DUPLICATE.format(self._place(first)))
        return {number for number, _ in found}

    def _add_near_duplicates(self, near: NearDuplicates, duplicates: set[int]) -> None:
        leaks = {
            number for number, error in zip(self._error_records, self._errors, strict=True) if error.code == "leak"
        }
        for number, first, similarity in near.pairs():
            if number < 0 or number in duplicates or (first < 0 and number in leaks):
                continue
            told = _NEAR if first >= 0 else _NEAR_HELD_OUT
            self._tell(number, "", "near-duplicate", told.format(similarity, self._place(first)))

    def _place(self, number: int) -> str:
        if number < 0:
            return self._held_out_places[-number - 1]
        return "{}:{}".format(*self._places[number])


_LEAK = (
    "The same question stands in the held-out file ({}), which then measures memory. "
    "Remove the record from one of them."
)
_TOO_LONG = (
    "The record is {:,} tokens with its prompt, and those of {:,} or more are left out of training. "
    "Shorten it, or split it."
)
_DUPLICATE = "The same instruction, context and response as {}. Keep one (roslin records dedupe)."
_NEAR = "Nearly the same as {1} (similarity {0:.2f}). Keep the better one (roslin records dedupe --near)."
_NEAR_HELD_OUT = "Nearly the same as the held-out {1} (similarity {0:.2f}). Remove the record from one of them."


def _in_order(findings: list[Finding], numbers: "array[int]") -> tuple[list[Finding], "array[int]"]:
    """By file and line, as they were read. What is said of a file as a whole (-1) keeps to where it was found."""
    if not findings:
        return findings, numbers
    found = np.frombuffer(numbers, dtype=np.int64)
    latest = np.maximum.accumulate(np.where(found >= 0, np.arange(len(found)), 0))
    order = np.argsort(np.maximum(found[latest], 0), kind="stable")
    return [findings[i] for i in order], array("q", found[order].tobytes())


class _Places:
    """File and line of each record, in twelve bytes each."""

    def __init__(self) -> None:
        self._files: list[str] = []
        self._file, self._line = array("i"), array("q")

    def add(self, file: str, line: int) -> None:
        if not self._files or self._files[-1] != file:
            self._files.append(file)
        self._file.append(len(self._files) - 1)
        self._line.append(line)

    def __len__(self) -> int:
        return len(self._line)

    def __getitem__(self, number: int) -> tuple[str, int]:
        return self._files[self._file[number]], self._line[number]


class _Lengths:
    """Finds records that are too long, many at a time, and without counting those that cannot be.

    A tokenizer makes at most one token of a byte. Normalisation can make a text up to three times as long, and only
    where it is not ASCII.
    """

    _GROWTH = 3
    _JOINTS = 64
    """Bytes of the prompt that touch a record's texts, where tokens may fall otherwise than alone; generous."""

    def __init__(self, count: CountTokens, limit: int) -> None:
        self._count, self._limit = count, limit
        empty = count([Record(instruction="", context=".", response="")])[0]
        self._surely_fits = limit - empty - self._JOINTS
        self._waiting: list[tuple[int, Record]] = []

    def take(self, number: int, fields: Fields) -> list[tuple[int, int]]:
        """Add a record; numbers and lengths of those that have been found too long."""
        size = 0
        for text in fields[:3]:
            size += len(text) if text.isascii() else self._GROWTH * len(text.encode())
        if size < self._surely_fits:
            return []
        self._waiting.append((number, fields.record()))
        return self.rest() if len(self._waiting) == COUNT_AT_ONCE else []

    def rest(self) -> list[tuple[int, int]]:
        """Numbers and lengths of the too long among those that wait."""
        waiting, self._waiting = self._waiting, []
        lengths = self._count([record for _, record in waiting]) if waiting else []
        return [(number, length) for (number, _), length in zip(waiting, lengths, strict=True) if length >= self._limit]
