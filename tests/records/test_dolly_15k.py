"""All of databricks-dolly-15k, against counts taken here in plain ways."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from record_files import checked
from roslin.records import CheckReport, Record, count, dedupe, load, split_by_hash
from roslin.tokens import Tokenizer


@pytest.fixture(scope="module")
def rows(dolly_15k: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in dolly_15k.read_text(encoding="utf-8").split("\n")]


@pytest.fixture(scope="module")
def tokenizer(pythia_tokenizer: Path) -> Tokenizer:
    found = Tokenizer.load(pythia_tokenizer)
    found.add_keys()
    return found


@pytest.fixture(scope="module")
def report(dolly_15k: Path, tokenizer: Tokenizer) -> CheckReport:
    return checked(dolly_15k, near=True, count_tokens=tokenizer.lengths, max_length=2048)


def test_it_has_no_errors_and_known_warnings(report: CheckReport) -> None:
    assert report.records == 15_011
    assert report.errors == []
    counts = report.counts()
    assert counts["too-long"] == 34
    assert counts.keys() == {"too-long", "duplicate", "near-duplicate"}


def test_its_duplicates_are_all_found(report: CheckReport, rows: list[dict[str, str]]) -> None:
    """8 rows repeat another whole; 7 more differ from one in their category alone."""
    seen: dict[Any, int] = {}
    expected = {}
    for line, row in enumerate(rows, 1):
        text = (row["instruction"], row["context"], row["response"])
        if text in seen:
            expected[line] = seen[text]
        else:
            seen[text] = line
    found = {f.line: int(re.findall(r":(\d+)\.", f.message)[0]) for f in report.warnings if f.code == "duplicate"}
    assert found == expected
    assert len(found) == 15
    assert sum(rows[line - 1]["category"] == rows[first - 1]["category"] for line, first in found.items()) == 8


def test_its_near_duplicates_share_most_of_their_words(report: CheckReport, rows: list[dict[str, str]]) -> None:
    found = [f for f in report.warnings if f.code == "near-duplicate"]
    assert len(found) == NEAR
    for finding in found:
        other = int(re.findall(r":(\d+) \(", finding.message)[0])
        a, b = (re.findall(r"\w+", " ".join(list(rows[n - 1].values())[:3]).lower()) for n in (finding.line, other))
        common = sum((Counter(a) & Counter(b)).values())
        assert common >= 0.8 * max(len(a), len(b))


NEAR = 18


def test_its_statistics(dolly_15k: Path, rows: list[dict[str, str]]) -> None:
    def characters(some: list[Record]) -> list[int]:
        return [len(record.response) for record in some]

    found = count([dolly_15k], characters)
    assert found.categories == Counter(row["category"] for row in rows)
    assert next(iter(found.categories.items())) == ("open_qa", 3742)
    assert found.lengths
    assert found.lengths.total == sum(len(row["response"]) for row in rows)
    assert found.too_long == sum(len(row["response"]) >= 2048 for row in rows)
    assert found.with_context == sum(bool(row["context"]) for row in rows)


def test_it_is_loaded_split_and_deduplicated(dolly_15k: Path, rows: list[dict[str, str]]) -> None:
    records = load([dolly_15k])
    assert records == [Record(**row) for row in rows]
    train, held_out = split_by_hash(records, 0.05)
    assert len(train) + len(held_out) == 15_011
    assert 640 < len(held_out) < 860  # four standard deviations
    assert len(dedupe(records).records) == 14_996
