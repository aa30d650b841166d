"""Splitting records into those to train on and those held out."""

from collections.abc import Sequence

import numpy as np

from roslin.errors import UsageError
from roslin.records.content import prompt_digest
from roslin.records.record import Record

DOLLY_SEED = 42
DOLLY_TEST_SIZE = 1000


def _places(records: Sequence[Record], salt: str) -> list[int]:
    """Where each record falls on a scale of 2**64, by its question alone."""
    return [int.from_bytes(prompt_digest(r.instruction, r.context, salt)[:8], "big") for r in records]


def split_by_hash(records: Sequence[Record], fraction: float, salt: str = "") -> tuple[list[Record], list[Record]]:
    """Hold out about `fraction` of the records by a hash of each one's question; returns (train, held out), in order.

    Each record is judged alone, so adding or removing others moves none. Records with the same instruction and context,
    whatever their case and spacing, stay together: no question is on both sides. Another `salt` gives another split.
    Raises UsageError for a fraction outside 0 to 1.
    """
    if not 0 <= fraction <= 1:
        raise UsageError(f"The fraction to hold out lies between 0 and 1; {fraction} does not.")
    limit = fraction * 2**64
    held_out = [place < limit for place in _places(records, salt)]
    return _parted(records, held_out)


def split_by_count(records: Sequence[Record], count: int, salt: str = "") -> tuple[list[Record], list[Record]]:
    """Hold out `count` records, those whose hashes are lowest; returns (train, held out), in order.

    Same questions stay together, so it may hold out fewer where a group would pass the count. New records may take the
    place of held-out ones: only a fraction keeps old records where they are.
    Raises UsageError for a count that is not below the number of records.
    """
    if not 0 < count < len(records):
        raise UsageError(
            f"{count} records cannot be held out of {len(records)}; at least one must be left to train on."
        )
    places = _places(records, salt)
    sizes: dict[int, int] = {}
    for place in places:
        sizes[place] = sizes.get(place, 0) + 1
    chosen: set[int] = set()
    for place in sorted(sizes):
        if sizes[place] <= count:
            chosen.add(place)
            count -= sizes[place]
    return _parted(records, [place in chosen for place in places])


def _parted(records: Sequence[Record], held_out: Sequence[bool]) -> tuple[list[Record], list[Record]]:
    pairs = list(zip(records, held_out, strict=True))
    return [record for record, out in pairs if not out], [record for record, out in pairs if out]


def dolly_split(count: int, test_size: int, seed: int = DOLLY_SEED) -> tuple[list[int], list[int]]:
    """Indices (train, test), in order, that datasets' `shuffle(seed)` and `train_test_split(test_size, seed)` pick.

    Both draw a permutation from NumPy's default generator; the test rows are the first of the second one. Dolly's
    trainer did so after leaving out the records that were too long, with 200 (its code) or 1,000 (its command line).
    Raises UsageError for a test size that leaves nothing on one side.
    """
    if not 0 < test_size < count:
        raise UsageError(f"{test_size} records cannot be held out of {count}; at least one must be left to train on.")
    shuffled = np.random.default_rng(seed).permutation(count)
    second = shuffled[np.random.default_rng(seed).permutation(count)]
    return [int(i) for i in second[test_size:]], [int(i) for i in second[:test_size]]
