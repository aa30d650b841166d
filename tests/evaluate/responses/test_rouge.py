"""ROUGE-L against the package that the harness uses, and the subsequence against the plain table."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roslin.evaluate.responses import rouge_l
from roslin.evaluate.responses.rouge import common_subsequence


def plain_length(first: str, second: str) -> int:
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first, 1):
        for j, b in enumerate(second, 1):
            table[i][j] = table[i - 1][j - 1] + 1 if a == b else max(table[i - 1][j], table[i][j - 1])
    return table[-1][-1]


@given(st.text("abc", max_size=40), st.text("abcd", max_size=40))
def test_the_subsequence_is_that_of_the_plain_table(first: str, second: str) -> None:
    assert common_subsequence(first, second) == plain_length(first, second)


def test_rouge_equals_the_package_on_real_pairs(dolly_15k: Path) -> None:
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    with dolly_15k.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["response"][:1500] for line, _ in zip(lines, range(250), strict=False)]
    pairs = [*pairwise(texts), *((text, text[len(text) // 3 :]) for text in texts)]
    for reference, answer in pairs:
        assert rouge_l(reference, answer) == pytest.approx(
            scorer.score(reference, answer)["rougeL"].fmeasure, abs=1e-12
        )


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        ("The cat sat.", "the CAT sat", 1.0),
        ("police killed the gunman", "police kill the gunman", 0.75),  # Lin 2004, S1 and S2
        ("police killed the gunman", "the gunman kill police", 0.5),  # S1 and S3
        ("a b", "c", 0.0),
        ("", "c", 0.0),
        ("", "", 0.0),
        ("Übergrößenträger", "bergr", 2 / 4),  # cut at every other letter: bergr, entr, ger
    ],
)
def test_worked_values(reference: str, answer: str, expected: float) -> None:
    assert rouge_l(reference, answer) == pytest.approx(expected)
