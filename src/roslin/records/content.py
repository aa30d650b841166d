"""What a record says, as hashes: the same on every machine and in every run."""

import hashlib
from array import array

import numpy as np

from roslin.records.columns import Fields
from roslin.records.record import Record

DIGEST_BYTES = 16


def content_digest(record: Fields | Record) -> bytes:
    """16 bytes of instruction, context and response; the category does not count, for training never sees it."""
    sizes = f"{len(record.instruction)},{len(record.context)}:"
    text = f"{sizes}{record.instruction}{record.context}{record.response}"
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


def prompt_digest(instruction: str, context: str, salt: str = "") -> bytes:
    """16 bytes of the question: instruction and context, whatever their case and spacing."""
    text = f"{salt}\0{_plain(instruction)}\0{_plain(context)}"
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


class Digests:
    """The digest of each record, in 24 bytes each, to find the repeated ones."""

    def __init__(self) -> None:
        """Start with none."""
        self._digests = bytearray()
        self._numbers = array("q")

    def add(self, number: int, digest: bytes) -> None:
        """Remember the digest of a record, by its number."""
        self._digests += digest
        self._numbers.append(number)

    def duplicates(self) -> list[tuple[int, int]]:
        """For each record that repeats an earlier one: its number, and that of the first of its kind."""
        halves = np.frombuffer(bytes(self._digests), dtype=np.uint64).reshape(-1, 2)
        if len(halves) < 2:
            return []
        order = np.lexsort((halves[:, 1], halves[:, 0]))
        ordered = halves[order]
        repeats = np.concatenate([[False], (ordered[1:] == ordered[:-1]).all(axis=1)])
        first = order[np.maximum.accumulate(np.where(repeats, 0, np.arange(len(order))))]
        pairs = np.stack([order[repeats], first[repeats]], axis=1)
        return [(self._numbers[int(a)], self._numbers[int(b)]) for a, b in pairs[np.argsort(pairs[:, 0])]]
