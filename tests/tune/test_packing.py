"""Rows: nothing lost, nothing over, well filled; and an epoch's updates."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from roslin.records import Record
from roslin.tokens import Example, Tokenizer
from roslin.tune.packing import best_fit, epoch_updates, make_pack

lengths_lists = st.lists(st.integers(1, 64), max_size=60)


@given(lengths_lists)
def test_every_index_stands_once_and_no_row_overflows(lengths: list[int]) -> None:
    rows = best_fit(lengths, 64)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 64 for row in rows)


@given(lengths_lists)
def test_best_fit_is_the_slow_plain_version(lengths: list[int]) -> None:
    free: list[int] = []
    rows: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fitting = [r for r in range(len(rows)) if free[r] >= lengths[index]]
        if fitting:
            row = min(fitting, key=lambda r: (free[r], r))
        else:
            row = len(rows)
            rows.append([])
            free.append(64)
        rows[row].append(index)
        free[row] -= lengths[index]
    assert best_fit(lengths, 64) == rows


def test_a_length_beyond_the_row_is_refused() -> None:
    with pytest.raises(ValueError, match="65 does not fit"):
        best_fit([3, 65], 64)


@pytest.mark.full
def test_dolly_15k_fills_its_rows(dolly_15k: Path, pythia_tokenizer: Path) -> None:
    tokenizer = Tokenizer.load(pythia_tokenizer)
    tokenizer.add_keys()
    records = [Record(**json.loads(line)) for line in dolly_15k.read_text(encoding="utf-8").splitlines()]
    lengths = [n for n in tokenizer.lengths(records) if n < 2048]
    assert sum(lengths) == 2_910_722
    updates = epoch_updates(lengths, row_length=2048, records_per_update=48, seed=42, epoch=0)
    rows = [row for update in updates for row in update]
    assert sum(lengths) / (2048 * len(rows)) >= 0.98
    assert len(updates) == round(len(lengths) / 48)


def test_a_pack_predicts_answers_and_never_across_records() -> None:
    pack = make_pack([Example([5, 6, 7, 8], answer_start=2), Example([9, 10, 11], answer_start=1)])
    assert pack.ids_N.tolist() == [5, 6, 7, 8, 9, 10, 11]
    assert pack.lengths == [4, 3]
    assert pack.target_M.tolist() == [7, 8, 10, 11]
    assert pack.ids_N[pack.predict_M].tolist() == [6, 7, 9, 10]
    assert (pack.token_count, pack.answer_count) == (7, 4)


@given(st.lists(st.integers(1, 64), min_size=1, max_size=80), st.integers(1, 20), st.integers(0, 5))
def test_an_epoch_holds_each_record_once_and_is_drawn_from_its_seed(
    lengths: list[int], per_update: int, epoch: int
) -> None:
    def updates(seed: int) -> list[list[list[int]]]:
        return epoch_updates(lengths, row_length=64, records_per_update=per_update, seed=seed, epoch=epoch)

    found = updates(7)
    assert found == updates(7)
    assert all(found)
    assert sorted(i for rows in found for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 64 for rows in found for row in rows)


def test_updates_hold_the_asked_number_of_records_on_average() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(20, 600, (4000,), generator=generator).tolist()
    updates = epoch_updates(lengths, row_length=2048, records_per_update=48, seed=1, epoch=0)
    counts = [sum(map(len, rows)) for rows in updates]
    assert len(updates) == round(4000 / 48)
    assert 47 < sum(counts) / len(counts) < 49
    assert max(len(row) for rows in updates for row in rows) <= 48
    assert max(counts) < 48 + 2 * max(len(row) for rows in updates for row in rows)


def test_epochs_differ() -> None:
    first, second = (
        epoch_updates([10] * 30, row_length=64, records_per_update=6, seed=1, epoch=epoch) for epoch in (0, 1)
    )
    assert first != second
