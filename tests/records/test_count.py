"""Counting and de-duplicating records."""

import numpy as np
import pytest

from record_files import GOOD, MakeFile
from roslin.records import Record, count, dedupe


def words(found: "list[Record]") -> list[int]:
    return [len(f"{r.instruction} {r.context} {r.response}".split()) for r in found]


def test_counts_and_percentiles(make_file: MakeFile) -> None:
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 400, 700).tolist()
    rows = [{**GOOD, "category": "open_qa" if n % 3 else "", "response": "w " * size} for n, size in enumerate(sizes)]
    found = count([make_file(*rows, {**GOOD, "context": "c"}, {"instruction": "x"}, b"{")], words, max_length=300)
    lengths = [3 + size for size in sizes]
    assert (found.records, found.faulty, found.with_context) == (703, 2, 1)
    assert list(found.categories.items()) == [("open_qa", 467), ("(none)", 234)]
    assert found.lengths
    every = [*lengths, 6]
    assert (found.lengths.total, found.lengths.shortest, found.lengths.longest) == (sum(every), min(every), max(every))
    assert found.lengths.percentiles["50"] == pytest.approx(np.median(every), abs=0.05)
    by_category = found.lengths_by_category["(none)"]
    assert by_category.mean == pytest.approx(np.mean([n for i, n in enumerate(lengths) if i % 3 == 0]), abs=0.05)
    assert found.too_long == sum(n >= 300 for n in every)
    assert sum(n for _, _, n in found.histogram) == len(every)
    for low, high, n in found.histogram:
        assert n == sum(low <= size < high for size in every)
    assert 300 in [low for low, _, _ in found.histogram]


def test_nothing_sound_to_count(make_file: MakeFile) -> None:
    found = count([make_file(b"{")], words)
    assert (found.records, found.faulty, found.lengths, found.histogram) == (1, 1, None, [])


def record(instruction: str, response: str = "r", category: str = "") -> Record:
    return Record(instruction=instruction, response=response, category=category)


def test_the_first_of_equal_records_stays() -> None:
    found = [record("a", category="open_qa"), record("b"), record("a"), record("a", "other"), record("b"), record("a")]
    result = dedupe(found)
    assert result.records == [found[0], found[1], found[3]]
    assert [(r.removed, r.kept, r.exact) for r in result.repeats] == [(2, 0, True), (4, 1, True), (5, 0, True)]


def test_near_ones_go_only_when_asked_and_only_where_their_like_stays() -> None:
    text = " ".join(f"word{n}" for n in range(60))
    found = [record("Tell.", text), record("Tell.", f"{text} more"), record("Tell!", text), record("Tell.", text)]
    assert [(r.removed, r.kept, r.exact) for r in dedupe(found).repeats] == [(3, 0, True)]
    result = dedupe(found, near=True)
    assert result.records == [found[0]]
    assert [(r.removed, r.kept, r.exact) for r in result.repeats] == [(1, 0, False), (2, 0, False), (3, 0, True)]


def test_a_chain_of_likes_loses_no_more_than_it_must() -> None:
    """The last is near the middle one, which goes, but not near the first, which stays: it stays too."""
    base = [f"word{n}" for n in range(60)]
    chain = [base, [*base[:-5], *"abcde"], [*"fghij", *base[5:-5], *"abcde"]]
    found = [record("Tell me a tale.", " ".join(words)) for words in chain]
    result = dedupe(found, near=True)
    assert [(r.removed, r.kept) for r in result.repeats] == [(1, 0)]
