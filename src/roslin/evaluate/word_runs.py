"""Runs of words that texts share: an index of some texts, over which any number of others can be streamed."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that a hash keeps all bits of each word; which one is of no account, as equal hashes are compared by word."""
_ELSEWHERE = 0
"""The id of a word that no indexed text has, and of the gap between two texts."""

Ids = NDArray[np.uint64]
Places = NDArray[np.int64]


class _Kept(dict[int, int | None]):
    """A table for str.translate that deletes punctuation and symbols of every script."""

    def __missing__(self, code: int) -> int | None:
        self[code] = None if unicodedata.category(chr(code))[0] in "PS" else code
        return self[code]


_KEPT = _Kept()


def words_of(text: str) -> list[str]:
    """The words of a text: lower case, without punctuation, split where blanks are."""
    return text.lower().translate(_KEPT).split()


@dataclass(frozen=True)
class Shared:
    """Runs that streamed texts share with indexed ones, one an entry, each array as long as the others."""

    streamed_H: Places
    """The streamed text's number in its block."""
    indexed_H: Places
    """The indexed text's number."""
    start_H: Places
    """The word of the indexed text with which the run starts."""


@dataclass(frozen=True)
class _Table:
    """All indexed runs of one length, by rising hash."""

    hashes_R: Ids
    indexed_R: Places
    start_R: Places


class RunIndex:
    """The runs of `length` words of texts; a text with fewer words is one run, as long as it is.

    Memory is about 30 bytes an indexed word, whatever is streamed.
    """

    def __init__(self, texts: Iterable[Sequence[str]], length: int) -> None:
        self._length = length
        self._known: dict[str, int] = {}
        ids = [[self._known.setdefault(word, len(self._known) + 1) for word in text] for text in texts]
        self.sizes: Places = np.array([len(text) for text in ids], dtype=np.int64)
        """Words of each indexed text."""
        self._ids_W, self._text_W = _joined(ids)
        self._first: Places = np.cumsum(self.sizes + 1) - self.sizes - 1
        """Where each indexed text starts among all ids; a gap follows each."""
        self._tables = dict(self._build())

    def _build(self) -> Iterator[tuple[int, _Table]]:
        run_sizes = np.minimum(self.sizes, self._length)
        for size, hashes_W, whole_W in _runs(self._ids_W, self._length):
            at = np.flatnonzero(whole_W)
            at = at[run_sizes[self._text_W[at]] == size]
            if len(at):
                at = at[np.argsort(hashes_W[at], kind="stable")]
                indexed = self._text_W[at]
                yield size, _Table(hashes_W[at], indexed, at - self._first[indexed])

    def shared(self, texts: Sequence[Sequence[str]]) -> Shared:
        """Every place where an indexed run occurs in one of `texts`, once for each indexed text that has it."""
        ids_W, text_W = _joined([[self._known.get(word, _ELSEWHERE) for word in text] for text in texts])
        found = [
            self._hits(self._tables[size], size, ids_W, text_W, hashes_W, whole_W)
            for size, hashes_W, whole_W in _runs(ids_W, self._length)
            if size in self._tables
        ]
        streamed, indexed, start = (np.concatenate([np.empty(0, np.int64), *column]) for column in _columns(found))
        return Shared(streamed, indexed, start)

    def _hits(
        self, table: _Table, size: int, ids_W: Ids, text_W: Places, hashes_W: Ids, whole_W: NDArray[np.bool_]
    ) -> tuple[Places, Places, Places]:
        at = np.flatnonzero(whole_W)
        low = np.searchsorted(table.hashes_R, hashes_W[at])
        alike = table.hashes_R[np.minimum(low, len(table.hashes_R) - 1)] == hashes_W[at]
        at, low = at[alike], low[alike]
        many = np.searchsorted(table.hashes_R, hashes_W[at], side="right") - low
        at_H = np.repeat(at, many)
        rows_H = np.repeat(low - (np.cumsum(many) - many), many) + np.arange(many.sum())
        indexed_H, start_H = table.indexed_R[rows_H], table.start_R[rows_H]
        steps = np.arange(size)
        mine = self._ids_W[(self._first[indexed_H] + start_H)[:, None] + steps]
        same = (ids_W[at_H[:, None] + steps] == mine).all(axis=1)
        return text_W[at_H][same], indexed_H[same], start_H[same]


def _columns(found: Sequence[tuple[Places, Places, Places]]) -> Iterator[list[Places]]:
    for column in range(3):
        yield [hits[column] for hits in found]


def _joined(texts: Sequence[Sequence[int]]) -> tuple[Ids, Places]:
    """The ids of all texts with a gap behind each, and the number of the text at each place."""
    flat: list[int] = []
    for text in texts:
        flat.extend(text)
        flat.append(_ELSEWHERE)
    sizes = np.array([len(text) + 1 for text in texts], dtype=np.int64)
    return np.array(flat, dtype=np.uint64), np.repeat(np.arange(len(texts)), sizes)


def _runs(ids_W: Ids, longest: int) -> Iterator[tuple[int, Ids, NDArray[np.bool_]]]:
    """For each length up to the longest: the hash of the run that starts at each place, and whether it is whole.

    A run is whole where each of its words is known and none of it lies behind the text's end.
    """
    hashes_W: Ids = np.zeros(len(ids_W), dtype=np.uint64)
    whole_W: NDArray[np.bool_] = np.ones(len(ids_W), dtype=bool)
    for size in range(1, longest + 1):
        words_W = ids_W[size - 1 :]
        hashes_W, whole_W = hashes_W[: len(words_W)], whole_W[: len(words_W)]
        hashes_W = hashes_W * _FACTOR + words_W
        whole_W = whole_W & (words_W != _ELSEWHERE)
        yield size, hashes_W, whole_W
