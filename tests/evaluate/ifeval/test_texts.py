"""Words and sentences as IFEval counts them."""

import json
from pathlib import Path

import pytest

from roslin.evaluate.ifeval import texts


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("No end", 1),
        ("One. Two! Three? Four", 4),
        ("Dr. Smith met Mr. J. R. Jones at 3.5 p.m. on Jan. 5 in the U.S. Army.", 1),
        ("He came at 5 p.m. She had left.", 2),
        ('"Really?" she said. (Yes.) **Done.** Good...', 5),
        ("Well... maybe. e.g. this one.", 2),
        ("a line\nand another\n\nand a third", 1),
        ("Visit example.com or v1.2. Then rest.", 2),
    ],
)
def test_sentences_end_where_people_see_them_end(text: str, count: int) -> None:
    assert len(texts.sentences(text)) == count
    assert "".join("".join(texts.sentences(text)).split()) == "".join(text.split())


def test_sentences_are_counted_much_as_punkt_counts_them(dolly_15k: Path) -> None:
    punkt = pytest.importorskip("nltk.tokenize.punkt")
    parameters = punkt.PunktParameters()
    parameters.abbrev_types = set(texts.ABBREVIATIONS)  # the trained model is a download; its rules come with nltk
    tokenizer = punkt.PunktSentenceTokenizer(parameters)
    with dolly_15k.open(encoding="utf-8") as lines:
        responses = [json.loads(line)["response"] for line, _ in zip(lines, range(1000), strict=False)]
    same = sum(len(texts.sentences(text)) == len(tokenizer.tokenize(text)) for text in responses)
    assert same / len(responses) > 0.97


def test_capital_words() -> None:
    assert texts.capital_words("NASA's X-RAY, a B2 (OK) and I. Mixed McX") == ["NASA", "X-RAY", "B2", "OK", "I."]
