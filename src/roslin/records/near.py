"""Near-duplicates: records that say almost the same, found by MinHash and confirmed by counting.

Two records are near-duplicates when the sets of their three-word runs (each field for itself) have a Jaccard similarity
of at least THRESHOLD, and each field shares at least FIELD_THRESHOLD of its words: one passage with two questions is
no duplicate, nor is one question with two answers. Case and punctuation do not count. Candidates come from MinHash
(Broder 1997) with bands (Indyk and Motwani 1998): BANDS keys of ROWS minima each; every candidate is then measured
on its words, so what is reported is so. All is done on whole blocks of records in NumPy.
"""

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from roslin.errors import MachineError

THRESHOLD = 0.8
FIELD_THRESHOLD = 0.5
BANDS, ROWS = 16, 5
"""A pair at similarity s is a candidate with probability 1 - (1 - s^5)^16: 0.998 at 0.8, 0.9999 at 0.87."""
CROWDED = 2
"""In a band, a record is compared with the first of its key and so many just before it: crowds cost linear time."""

_NO_ROOM = (
    "Looking for near-duplicates needs room for a temporary file, which could not be written ({}). Make room, name "
    "another folder (TMPDIR=FOLDER), or do without (--no-near)."
)

Words = npt.NDArray[np.uint32]
Keys = npt.NDArray[np.uint32]
_FIELDS = 3


def _classes() -> npt.NDArray[np.uint8]:
    """For each byte: 0 between words, 1 in a word, 2 a character that is a word by itself (Chinese, Korean …)."""
    kinds = np.zeros(256, dtype=np.uint8)
    for letters in (b"abcdefghijklmnopqrstuvwxyz0123456789", bytes(range(0x80, 0x100))):
        kinds[list(letters)] = 1
    kinds[0xE3:0xEE] = 2  # lead bytes of U+3000 to U+DFFF
    return kinds


_CLASS = _classes()
_FACTORS = (
    np.random.default_rng(20230412).integers(1, 2**31, BANDS * ROWS, dtype=np.uint32) * np.uint32(2)
) | np.uint32(1)
_MASKS = np.random.default_rng(20230413).integers(0, 2**32, BANDS * ROWS, dtype=np.uint32)


def words_of(texts: Sequence[str]) -> tuple[Words, npt.NDArray[np.int64]]:
    """A hash for each word of each text, one after the other, and the number of words in each text."""
    encoded = [text.lower().encode() + b" " for text in texts]
    buffer = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    kind = _CLASS[buffer]
    inside = kind > 0
    before = np.empty_like(kind)
    before[0], before[1:] = 0, kind[:-1]
    # A continuation byte (10xxxxxx) never starts a word.
    continues = (buffer & 0xC0) == 0x80
    starts = np.flatnonzero(inside & ~continues & ((before == 0) | (kind == 2) | _after_single(kind, continues)))
    ends = np.cumsum([len(text) for text in encoded])
    counts = np.diff(np.searchsorted(starts, ends), prepend=0)
    return _hash_words(buffer, inside, starts), counts


def _after_single(kind: npt.NDArray[np.uint8], continues: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Bytes right behind a character that is a word by itself (three bytes long)."""
    after = np.zeros(len(kind), dtype=bool)
    after[3:] = (kind[:-3] == 2) & ~continues[3:]
    return after


def _hash_words(buffer: npt.NDArray[np.uint8], inside: npt.NDArray[np.bool_], starts: npt.NDArray[np.int64]) -> Words:
    """Polynomial hashes of the bytes from each start to the next that stand inside words."""
    if not len(starts):
        return np.empty(0, dtype=np.uint32)
    place = np.arange(len(buffer), dtype=np.int32)
    place -= _word_starts(starts, len(buffer))
    terms = np.where(inside, buffer, 0).astype(np.uint32)
    terms *= _POWERS[place & 1023]
    return _mix(np.add.reduceat(terms, starts, dtype=np.uint32))


def _word_starts(starts: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int32]:
    """For each byte, where the word it belongs to starts."""
    lengths = np.diff(starts, append=length)
    return np.concatenate([np.zeros(starts[0], np.int32), np.repeat(starts.astype(np.int32), lengths)])


_POWERS = np.cumprod(np.full(1024, 0x01000193, dtype=np.uint32), dtype=np.uint32)


def _mix(value: Words) -> Words:
    """Spread a 32-bit hash over all its bits (the finalizer of MurmurHash3, public domain)."""
    value = value ^ (value >> np.uint32(16))
    value *= np.uint32(0x85EBCA6B)
    value ^= value >> np.uint32(13)
    value *= np.uint32(0xC2B2AE35)
    return value ^ (value >> np.uint32(16))


def runs_of(words: Words, counts: npt.NDArray[np.int64]) -> Words:
    """A hash for each run of three words, one for each word: runs end with their text, and differ by field."""
    field = np.tile(np.arange(1, _FIELDS + 1, dtype=np.uint32), len(counts) // _FIELDS).repeat(counts)
    left = np.repeat(np.cumsum(counts), counts) - np.arange(len(words))
    second = np.where(left > 1, np.roll(words, -1), np.uint32(0))
    third = np.where(left > 2, np.roll(words, -2), np.uint32(0))
    return _mix(
        words * np.uint32(0x9E3779B1) ^ _mix(second + np.uint32(0x7F4A7C15)) ^ (third * np.uint32(0x85EBCA77) + field)
    )


def band_keys(runs: Words, counts: npt.NDArray[np.int64]) -> Keys:
    """For each record, BANDS keys; records that share one may be alike. `counts` are runs a record, none 0."""
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    keys = np.zeros((len(counts), BANDS), dtype=np.uint32)
    for number in range(BANDS * ROWS):
        hashed = runs ^ _MASKS[number]
        hashed *= _FACTORS[number]
        hashed ^= hashed >> np.uint32(15)
        hashed *= np.uint32(0x2C1B3C6D)
        lowest = np.minimum.reduceat(hashed, starts)
        band = keys[:, number // ROWS]
        band *= np.uint32(0x01000193)
        band ^= _mix(lowest + np.uint32(number))
    return keys


class NearDuplicates:
    """Gathers records and then names, for each that is nearly the same as an earlier one, that one.

    The words are kept in a temporary file (about four bytes a word), the keys in memory (64 bytes a record).
    """

    BLOCK_RECORDS, BLOCK_CHARACTERS = 2048, 1 << 22

    def __init__(self) -> None:
        """Start with no records. Raises MachineError, as `add` and `pairs` do, when there is no room for the words."""
        try:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  closed by __exit__
        except OSError as error:
            raise MachineError(_NO_ROOM.format(error.strerror)) from None
        self._texts: list[str] = []
        self._waiting: list[int] = []
        self._characters = 0
        self._keys: list[Keys] = []
        self._numbers: list[npt.NDArray[np.int64]] = []
        self._counts: list[npt.NDArray[np.int64]] = []

    def __enter__(self) -> Self:
        """Gather inside a `with`, which removes the temporary file."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the temporary file."""
        with suppress(OSError):  # what could not be written was told when it was; closing tries once more
            self._file.close()

    def add(self, number: int, instruction: str, context: str, response: str) -> None:
        """Gather one record, by its number."""
        self._waiting.append(number)
        self._texts += (instruction, context, response)
        self._characters += len(instruction) + len(context) + len(response)
        if len(self._waiting) == self.BLOCK_RECORDS or self._characters >= self.BLOCK_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        words, counts = words_of(self._texts)
        by_record = counts.reshape(-1, _FIELDS)
        kept = by_record.sum(axis=1) > 0
        if kept.any():
            self._keys.append(band_keys(runs_of(words, counts), by_record[kept].sum(axis=1)))
            self._numbers.append(np.asarray(self._waiting)[kept])
            self._counts.append(by_record[kept])
            self._keep(words)
        self._waiting, self._texts, self._characters = [], [], 0

    def _keep(self, words: Words) -> None:
        try:
            self._file.write(words.tobytes())
            self._file.flush()
        except OSError as error:
            raise MachineError(_NO_ROOM.format(error.strerror)) from None

    def pairs(self) -> list[tuple[int, int, float]]:
        """For each record that is nearly the same as an earlier one: its number, the earlier one's, the similarity."""
        if self._waiting:
            self._flush()
        if not self._numbers:
            return []
        numbers = np.concatenate(self._numbers)
        candidates = _candidates(np.concatenate(self._keys))
        self._keys = []
        measure = _Measure(self._file, np.concatenate(self._counts))
        found: list[tuple[int, int, float]] = []
        done = -1
        for later, earlier in candidates:
            if later == done:
                continue
            similarity = measure.similarity(int(earlier), int(later))
            if similarity >= THRESHOLD:
                found.append((int(numbers[later]), int(numbers[earlier]), similarity))
                done = later
        return found


def _candidates(keys: Keys) -> npt.NDArray[np.int64]:
    """Pairs (later, earlier) that share a key in some band, each once, by the later and then the earlier."""
    total = len(keys)
    pairs: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
    for band in range(BANDS):
        pairs = np.union1d(pairs, _band_pairs(keys[:, band])).astype(np.int64, copy=False)
    return np.stack([pairs // total, pairs % total], axis=1)


def _band_pairs(keys: Keys) -> npt.NDArray[np.int64]:
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    is_first = np.ones(len(keys), dtype=bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    first_place = np.maximum.accumulate(np.where(is_first, np.arange(len(keys)), 0))
    pairs = [_packed(order, np.flatnonzero(~is_first), first_place[~is_first])]
    for distance in range(1, CROWDED + 1):
        later = np.arange(distance, len(keys))
        later = later[later - distance > first_place[later]]
        pairs.append(_packed(order, later, later - distance))
    return np.concatenate(pairs)


def _packed(
    order: npt.NDArray[np.int64], later: npt.NDArray[np.int64], earlier: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    return order[later] * len(order) + order[earlier]


class _Measure:
    """The true similarity of two records, from their words in the temporary file."""

    def __init__(self, file: Any, counts: npt.NDArray[np.int64]) -> None:
        self._file = file
        self._counts = counts
        sizes = counts.sum(axis=1)
        self._starts = np.cumsum(sizes) - sizes

    def similarity(self, first: int, second: int) -> float:
        """Jaccard similarity of the runs, 0 where a field shares less than FIELD_THRESHOLD of its words."""
        counts_a, counts_b = self._counts[first], self._counts[second]
        words_a, words_b = self._words(first), self._words(second)
        whole = _jaccard(runs_of(words_a, counts_a), runs_of(words_b, counts_b))
        if whole < THRESHOLD:
            return whole
        fields = zip(
            np.split(words_a, np.cumsum(counts_a)[:-1]), np.split(words_b, np.cumsum(counts_b)[:-1]), strict=True
        )
        return whole if all(_jaccard(a, b) >= FIELD_THRESHOLD for a, b in fields) else 0.0

    def _words(self, place: int) -> Words:
        size = int(self._counts[place].sum())
        self._file.seek(4 * int(self._starts[place]))
        return np.frombuffer(self._file.read(4 * size), dtype=np.uint32)


def _jaccard(first: Words, second: Words) -> float:
    """Size of the intersection over that of the union; two empty sets are alike."""
    a, b = set(first.tolist()), set(second.tolist())
    union = len(a | b)
    return len(a & b) / union if union else 1.0
