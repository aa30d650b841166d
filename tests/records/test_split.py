"""Splits: by hash, where no record moves another, and by Dolly's own indices."""

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roslin.errors import UsageError
from roslin.records import Record, dolly_split, split_by_count, split_by_hash

records = st.lists(
    st.builds(
        Record, instruction=st.text(max_size=3), context=st.sampled_from(["", "c"]), response=st.text(max_size=3)
    ),
    max_size=30,
)


def numbered(count: int) -> list[Record]:
    return [Record(instruction=f"Question {n}?", response="r") for n in range(count)]


@settings(deadline=None)
@given(old=records, new=records, fraction=st.floats(0, 1))
def test_added_records_move_no_old_one(old: list[Record], new: list[Record], fraction: float) -> None:
    train, held_out = split_by_hash(old, fraction)
    more_train, more_held_out = split_by_hash([*new, *old], fraction)
    assert all(record in more_train for record in train)
    assert all(record in more_held_out for record in held_out)
    assert sorted(map(repr, train + held_out)) == sorted(map(repr, old))


@settings(deadline=None)
@given(found=records)
def test_no_question_is_on_both_sides(found: list[Record]) -> None:
    train, held_out = split_by_hash(found, 0.5)
    questions = [{(" ".join(r.instruction.casefold().split()), r.context) for r in part} for part in (train, held_out)]
    assert not questions[0] & questions[1]


def test_the_share_is_as_asked_and_salts_differ() -> None:
    found = numbered(20_000)
    held_out = split_by_hash(found, 0.1)[1]
    assert 1850 < len(held_out) < 2150  # 3.5 standard deviations of a fair draw
    salted = split_by_hash(found, 0.1, salt="other")[1]
    assert 120 < len(set(map(repr, held_out)) & set(map(repr, salted))) < 280


def test_the_split_is_the_same_everywhere_and_always() -> None:
    assert [r.instruction for r in split_by_hash(numbered(40), 0.1)[1]] == PINNED


PINNED = [f"Question {n}?" for n in (0, 3, 7, 15, 17, 26)]


def test_by_count() -> None:
    found = numbered(100)
    train, held_out = split_by_count(found, 7)
    assert (len(train), len(held_out)) == (93, 7)
    twice = found + [Record(instruction=r.instruction, response="another") for r in found]
    train, held_out = split_by_count(twice, 7)
    assert len(held_out) == 6
    assert {r.instruction for r in train}.isdisjoint({r.instruction for r in held_out})


@pytest.mark.parametrize(
    ("count", "test_size", "seed"), [(15_011, 1000, 42), (15_011, 200, 42), (14_977, 200, 42), (7, 3, 0)]
)
def test_dolly_s_indices_are_those_of_datasets(count: int, test_size: int, seed: int) -> None:
    whole = datasets.Dataset.from_dict({"index": list(range(count))})
    peer = whole.shuffle(seed=seed).train_test_split(test_size=test_size, seed=seed)
    assert dolly_split(count, test_size, seed) == (peer["train"]["index"][:], peer["test"]["index"][:])


@pytest.mark.parametrize("size", [0, 10, 11, -1])
def test_sizes_that_leave_nothing_are_refused(size: int) -> None:
    with pytest.raises(UsageError, match="cannot be held out of 10"):
        dolly_split(10, size)
    with pytest.raises(UsageError, match="cannot be held out of 10"):
        split_by_count(numbered(10), size)


def test_fractions_outside_0_to_1_are_refused() -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        split_by_hash(numbered(3), 1.5)
