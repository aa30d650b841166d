"""Removing records that repeat others."""

from collections.abc import Sequence
from dataclasses import dataclass

from roslin.records.content import Digests, content_digest
from roslin.records.near import NearDuplicates
from roslin.records.record import Record


@dataclass(frozen=True)
class Repeat:
    """A record that was removed, and the one that was kept; numbers are places among the records, from 0."""

    removed: int
    kept: int
    similarity: float
    """1.0 and `exact` where the texts are the same."""
    exact: bool


@dataclass(frozen=True)
class Deduped:
    """The records that stay, in order, and what was removed."""

    records: list[Record]
    repeats: list[Repeat]


def dedupe(records: Sequence[Record], *, near: bool = False) -> Deduped:
    """Keep the first of records with the same instruction, context and response, and, with `near`, of nearly the same.

    A near-duplicate is removed only where the record that it repeats is kept.
    """
    digests = Digests()
    for number, record in enumerate(records):
        digests.add(number, content_digest(record))
    repeats = [Repeat(removed, kept, 1.0, exact=True) for removed, kept in digests.duplicates()]
    gone = {repeat.removed for repeat in repeats}
    if near:
        nearly = _near_repeats(records, gone)
        gone |= {repeat.removed for repeat in nearly}
        repeats = sorted(repeats + nearly, key=lambda repeat: repeat.removed)
    return Deduped([record for number, record in enumerate(records) if number not in gone], repeats)


def _near_repeats(records: Sequence[Record], gone: set[int]) -> list[Repeat]:
    removed: set[int] = set()
    repeats: list[Repeat] = []
    with NearDuplicates() as index:
        for number, record in enumerate(records):
            if number not in gone:
                index.add(number, record.instruction, record.context, record.response)
        for later, earlier, similarity in index.pairs():
            if earlier not in removed:
                removed.add(later)
                repeats.append(Repeat(later, earlier, similarity, exact=False))
    return repeats
