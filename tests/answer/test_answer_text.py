"""Streaming text against a slow oracle, over random texts and random ways to split them into tokens."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roslin.answer import AnswerText
from roslin.tokens import Tokenizer

BASE = Path(__file__).resolve().parents[2] / "src" / "roslin" / "assets" / "base"
TOKENIZER = Tokenizer.load(BASE)
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
"""Bytes that a byte-level tokenizer writes as themselves; the others it writes as characters from 256 on."""


def byte_ids() -> list[int]:
    """The id of each single byte."""
    vocabulary = TOKENIZER._backend.get_vocab()
    others = [byte for byte in range(256) if byte not in PRINTABLE]
    return [vocabulary[chr(byte if byte in PRINTABLE else 256 + others.index(byte))] for byte in range(256)]


BYTE_IDS = byte_ids()


def expected(text: str, stops: set[str], textual_end: bool) -> str:
    """The text up to the stop that is complete first (of those, the longest), stripped; found a character at a time."""
    for size in range(len(text) + 1):
        seen = text[:size]
        starts = [size - len(stop) for stop in stops if seen.endswith(stop)]
        if textual_end and (match := re.search(r"#+\s*End\Z", seen)):
            starts.append(match.start())
        if starts:
            return seen[: min(starts)].strip()
    return text.strip()


AWKWARD = ["### End", "##", "#", "\n\n", " ", "E", "En", "End", "stop", "st", "op"]
AWKWARD += ["🐑", "👩\u200d👩\u200d👧", "ÿ", "日本", "#\n #End"]
PIECES = st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), st.sampled_from(AWKWARD))
TEXTS = st.lists(PIECES, max_size=10).map("".join)
STOPS = st.sets(st.sampled_from(["stop", "to", "op s", "🐑", "\n\n", "End"]), max_size=3)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), text=TEXTS, stops=STOPS, textual_end=st.booleans())
def test_pieces_are_the_text_whatever_the_split(
    data: st.DataObject, text: str, stops: set[str], textual_end: bool
) -> None:
    ids: list[int] = []
    rest = text
    while rest:
        size = data.draw(st.integers(1, min(len(rest), 8)))
        chunk, rest = rest[:size], rest[size:]
        ids += [BYTE_IDS[byte] for byte in chunk.encode()] if data.draw(st.booleans()) else TOKENIZER.encode(chunk)
    answer = AnswerText(TOKENIZER, sorted(stops), textual_end=textual_end)
    whole = expected(TOKENIZER.decode(ids), stops, textual_end)
    shown = ""
    for id in ids:
        shown += answer.push(id)
        assert whole.startswith(shown), "something was shown that is not part of the answer"
    shown += answer.finish()
    assert shown == answer.text == whole


def test_half_a_character_at_the_very_end_is_shown_as_a_replacement() -> None:
    answer = AnswerText(TOKENIZER)
    sheep = "🐑".encode()
    assert [answer.push(BYTE_IDS[byte]) for byte in b"a" + sheep[:3]] == ["a", "", "", ""]
    assert "\ufffd" in answer.finish()


@pytest.mark.parametrize(
    ("tokens", "pieces", "rest"),
    [
        (["Yes.", "\n\n", "###", " End", " more"], ["Yes.", "", "", "", ""], ""),
        (["Yes.", "\n\n", "###", " Title"], ["Yes.", "", "", "\n\n### Title"], ""),
        (["Yes.", "\n\n", "## "], ["Yes.", "", ""], "\n\n##"),
        (["  ", "Yes", "  "], ["", "Yes", ""], ""),
    ],
)
def test_what_may_become_the_end_key_is_held_back(tokens: list[str], pieces: list[str], rest: str) -> None:
    answer = AnswerText(TOKENIZER, textual_end=True)
    assert ["".join(answer.push(id) for id in TOKENIZER.encode(token)) for token in tokens] == pieces
    assert answer.finish() == rest
