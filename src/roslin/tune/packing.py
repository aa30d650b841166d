"""Packing: whole examples side by side in rows, and the order in which an epoch's rows become updates."""

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from roslin.tokens import Example

WINDOW_UPDATES = 20
"""How many updates' records are packed together: more fill rows better, fewer mix neighbours better."""


@dataclass(frozen=True)
class Pack:
    """A row of several examples: flat tensors of N tokens, and the length of each example in it."""

    ids_N: torch.Tensor
    lengths: list[int]
    predict_M: torch.Tensor
    """Positions whose next token is part of an answer."""
    target_M: torch.Tensor
    """Those next tokens."""

    @property
    def token_count(self) -> int:
        """All tokens of the row."""
        return len(self.ids_N)

    @property
    def answer_count(self) -> int:
        """Tokens that the loss is taken on."""
        return len(self.target_M)


def make_pack(examples: Sequence[Example]) -> Pack:
    """Lay examples side by side. Nothing is predicted across their boundaries."""
    lengths = [len(example.ids) for example in examples]
    starts = np.cumsum([0, *lengths[:-1]])
    ids = np.concatenate([np.asarray(example.ids, dtype=np.int64) for example in examples])
    targets = np.concatenate(
        [np.arange(start + e.answer_start, start + len(e.ids)) for start, e in zip(starts, examples, strict=True)]
    )
    return Pack(
        ids_N=torch.from_numpy(ids),
        lengths=lengths,
        predict_M=torch.from_numpy(targets - 1),
        target_M=torch.from_numpy(ids[targets]),
    )


def best_fit(lengths: Sequence[int], capacity: int, most: int | None = None) -> list[list[int]]:
    """Rows of at most `most` indices whose lengths sum to at most `capacity`: best fit, longest first (Johnson 1973).

    Among equal lengths the earlier index goes first, so the rows depend on the order given and nothing else.
    Raises ValueError for a length beyond the capacity.
    """
    if lengths and max(lengths) > capacity:
        raise ValueError(f"a length of {max(lengths)} does not fit rows of {capacity}")
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, row), sorted
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        place = bisect_left(room, (lengths[index], -1))
        if place == len(room):
            rows.append([])
            free, row = capacity, len(rows) - 1
        else:
            free, row = room.pop(place)
        rows[row].append(index)
        if len(rows[row]) != most:
            insort(room, (free - lengths[index], row))
    return rows


def _packed_window(
    window: NDArray[np.int64], lengths: Sequence[int], row_length: int, records_per_update: int
) -> list[list[int]]:
    rows = best_fit([lengths[i] for i in window], row_length, records_per_update)
    return [[int(window[i]) for i in row] for row in rows]


def epoch_updates(
    lengths: Sequence[int], *, row_length: int, records_per_update: int, seed: int, epoch: int
) -> list[list[list[int]]]:
    """One epoch as updates of rows of example indices; each example stands in it exactly once.

    The order is drawn from (seed, epoch) alone, so a resumed run finds it again. Rows are packed within windows of that
    order, so that a record meets other neighbours in each epoch. Rows are whole, so an update holds
    `records_per_update` records on average and not to the record: boundaries are where the running count of records
    comes nearest to a multiple of it. No row holds more than one update's records.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    size = WINDOW_UPDATES * records_per_update
    windows = [order[start : start + size] for start in range(0, len(order), size)]
    packed = [row for window in windows for row in _packed_window(window, lengths, row_length, records_per_update)]
    rows = [packed[r] for r in rng.permutation(len(packed))]
    ends = np.cumsum([len(row) for row in rows])
    count = max(1, round(len(lengths) / records_per_update))
    # Each row belongs to the update in whose share of the records its middle lies; with few rows some stay empty.
    middles = ends - np.asarray([len(row) for row in rows]) / 2
    owner = np.minimum((middles * count / len(lengths)).astype(int), count - 1)
    updates: list[list[list[int]]] = [[] for _ in range(count)]
    for row, update in zip(rows, owner, strict=True):
        updates[update].append(row)
    return [update for update in updates if update]


def join_rows(rows: Sequence[list[int]], lengths: Sequence[int], tokens_per_pass: int) -> list[list[int]]:
    """An update's rows side by side in passes of at most `tokens_per_pass` tokens: as few as will do, of like sizes.

    `lengths` are the examples'. A row longer than a pass is a pass of its own.
    """
    sizes = [sum(lengths[i] for i in row) for row in rows]
    for count in range(max(1, math.ceil(sum(sizes) / tokens_per_pass)), len(rows)):
        passes: list[list[int]] = [[] for _ in range(count)]
        filled = [0] * count
        for row in sorted(range(len(rows)), key=lambda r: -sizes[r]):
            least = filled.index(min(filled))
            passes[least] += rows[row]
            filled[least] += sizes[row]
        if max(filled) <= tokens_per_pass:
            return passes
    return list(rows)
