"""Counting records: by category, and how long they are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from roslin.errors import InputError
from roslin.records.check import COUNT_AT_ONCE, PROGRESS_EVERY, CountTokens
from roslin.records.columns import Columns
from roslin.records.finding import Finding, errors_told
from roslin.records.record import Record
from roslin.records.sources import find_sources, numbered_rows
from roslin.records.texts import TextRules

PERCENTILES = (1, 5, 25, 50, 75, 90, 95, 99)
NO_CATEGORY = "(none)"


@dataclass(frozen=True)
class Lengths:
    """Tokens of whole training texts: their sum, extremes and percentiles."""

    records: int
    total: int
    mean: float
    shortest: int
    longest: int
    percentiles: Mapping[str, float]


@dataclass(frozen=True)
class RecordStats:
    """What a set of records is made of."""

    records: int
    faulty: int
    """Records with errors, which are counted nowhere else."""
    with_context: int
    categories: Mapping[str, int]
    """Records by category, most frequent first."""
    lengths: Lengths | None
    lengths_by_category: Mapping[str, Lengths]
    too_long: int
    """Records that reach `max_length` tokens."""
    max_length: int
    histogram: Sequence[tuple[int, int, int]]
    """Bars (from, to, records) of lengths from `from` up to, not including, `to`."""

    def as_object(self) -> dict[str, Any]:
        """The figures as `--json` prints them."""
        return asdict(self)


def count(
    paths: Sequence[str | Path],
    count_tokens: CountTokens,
    *,
    mapping: Mapping[str, str] | None = None,
    keys: Sequence[str] = (),
    max_length: int = 2048,
    on_progress: Callable[[int], None] | None = None,
) -> RecordStats:
    """Read all records and count them; those with errors are counted as faulty and left out.

    `on_progress` is told now and then how many records have been read. Raises InputError, with all faults, for files
    that cannot be read to their end and for columns of the mapping that no record has.
    """
    columns = Columns(mapping or {})
    rules = TextRules(columns, keys)
    tally = _Tally(count_tokens)
    errors: list[Finding] = []
    sources = find_sources(paths)
    for number, source, row in numbered_rows(sources):
        fields, faults = rules.judge(row)
        if number < 0:
            errors += [fault.at(source.name, row.line) for fault in faults]
            continue
        tally.take(fields.record() if fields and _sound(faults) else None)
        if on_progress and number % PROGRESS_EVERY == 0:
            on_progress(number + 1)
    errors[:0] = [fault.at(sources[0].name, 1) for fault in columns.unseen()]
    if errors:
        raise InputError(errors_told(errors, paths))
    return tally.stats(max_length)


def _sound(faults: Sequence[Any]) -> bool:
    return all(fault.of_file or fault.code.startswith("unknown-") for fault in faults)


class _Tally:
    def __init__(self, count_tokens: CountTokens) -> None:
        self._count_tokens = count_tokens
        self._waiting: list[Record] = []
        self._lengths: dict[str, list[int]] = {}
        self._faulty = self._with_context = 0

    def take(self, record: Record | None) -> None:
        """Count one record; None is a faulty one."""
        if record is None:
            self._faulty += 1
            return
        self._with_context += bool(record.context)
        self._waiting.append(record)
        if len(self._waiting) == COUNT_AT_ONCE:
            self._measure()

    def _measure(self) -> None:
        lengths = self._count_tokens(self._waiting) if self._waiting else []
        for record, length in zip(self._waiting, lengths, strict=True):
            self._lengths.setdefault(record.category or NO_CATEGORY, []).append(length)
        self._waiting = []

    def stats(self, max_length: int) -> RecordStats:
        """All figures."""
        self._measure()
        by_size = sorted(self._lengths.items(), key=lambda item: (-len(item[1]), item[0]))
        everything = np.asarray([length for _, lengths in by_size for length in lengths], dtype=np.int64)
        return RecordStats(
            records=len(everything) + self._faulty,
            faulty=self._faulty,
            with_context=self._with_context,
            categories={name: len(lengths) for name, lengths in by_size},
            lengths=_lengths(everything) if len(everything) else None,
            lengths_by_category={name: _lengths(np.asarray(lengths)) for name, lengths in by_size},
            too_long=int((everything >= max_length).sum()),
            max_length=max_length,
            histogram=_histogram(everything, max_length),
        )


def _lengths(values: npt.NDArray[np.int64]) -> Lengths:
    found = np.percentile(values, PERCENTILES)
    return Lengths(
        records=len(values),
        total=int(values.sum()),
        mean=round(float(values.mean()), 1),
        shortest=int(values.min()),
        longest=int(values.max()),
        percentiles={str(p): round(float(value), 1) for p, value in zip(PERCENTILES, found, strict=True)},
    )


def _histogram(values: npt.NDArray[np.int64], max_length: int) -> list[tuple[int, int, int]]:
    """Bars that double in width, from 32 tokens on, with a border at `max_length`."""
    if not len(values):
        return []
    edges = [0]
    width = 32
    while edges[-1] <= values.max():
        edges.append(width)
        width *= 2
    borders = sorted({*edges, max_length} if max_length < edges[-1] else set(edges))
    counts, _ = np.histogram(values, bins=borders)
    return [(low, high, int(n)) for low, high, n in zip(borders, borders[1:], counts, strict=False)]
