"""The drawings: whole, told in words, shown on a page, and with figures that are true."""

import csv
from pathlib import Path
from xml.etree import ElementTree

import pytest

from documents import ROOT, pages
from roslin.prompt import render_record
from roslin.records import Record
from roslin.tokens import Tokenizer

DRAWINGS = sorted((ROOT / "docs" / "drawings").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"
DOLLY_BATCH = 6


def words(drawing: str) -> list[str]:
    """The texts of a drawing."""
    tree = ElementTree.parse(ROOT / "docs" / "drawings" / f"{drawing}.svg")
    return [element.text or "" for element in tree.iter(f"{SVG}text")]


@pytest.mark.parametrize("path", DRAWINGS, ids=lambda path: path.stem)
def test_each_is_told_in_words_readable_in_the_dark_and_shown(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ElementTree.fromstring(text)
    assert tree.find(f"{SVG}title") is not None and tree.find(f"{SVG}desc") is not None
    assert "prefers-color-scheme: dark" in text and "url(http" not in text
    assert any(f"drawings/{path.name})" in page.read_text(encoding="utf-8") for page in pages())


def test_the_prompt_is_the_prompt(base_folder: Path) -> None:
    record = Record(instruction="Who came?", context="Ann came on Monday.", response="Ann came.")
    text = render_record(record.instruction, record.context, record.response)
    drawn = words("prompt")
    assert {line for line in text.splitlines() if line} <= set(drawn)
    tokenizer = Tokenizer.load(base_folder)
    tokenizer.add_keys()
    example = tokenizer.example(record)
    assert f"The same as {len(example.ids)} tokens" in drawn
    assert f"read, no loss: {example.answer_start} tokens" in drawn
    texts = [tokenizer.decode([id]) for id in example.ids]
    first, second = texts.index("### Instruction:"), texts.index("### Response:\n")
    assert {f"{first} opening", f"{second - first - 1} instruction, context"} <= set(drawn)


def test_the_packed_records_are_dollys_first() -> None:
    with (ROOT / "bench" / "dolly_15k_lengths.csv").open(encoding="utf-8") as stream:
        lengths = [int(row["whole"]) for row in csv.DictReader(stream)][:DOLLY_BATCH]
    drawn, real, places = words("packing"), sum(lengths), DOLLY_BATCH * max(lengths)
    assert [word for word in drawn if word.isdigit()] == [*map(str, lengths), *map(str, lengths)]
    assert f"{places:,} places for {real:,} tokens: {100 * real / places:.0f} % are real" in drawn
