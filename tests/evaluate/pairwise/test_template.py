"""The judge's prompt, and which replies hold a verdict."""

from pathlib import Path

import pytest

from roslin.errors import InputError
from roslin.evaluate.pairwise import read_template
from roslin.evaluate.pairwise.template import DEFAULT, RULE, fill, read_verdict


@pytest.mark.parametrize(
    ("reply", "choice"),
    [
        ("VERDICT: FIRST", "left"),
        ("The first is vague.\n\nVERDICT: SECOND\n", "right"),
        ("Even.\r\nverdict: tie", "tie"),
        ("**VERDICT: BOTH BAD**", "both_bad"),
        ("VERDICT: FIRST\nIndeed:\nVERDICT: FIRST.", "left"),
        ("<think>\nVERDICT: SECOND? No.\nVERDICT: SECOND\n</think>\nVERDICT: FIRST", "left"),
        ("<think>VERDICT: SECOND</think>", None),
        ("", None),
        ("FIRST", None),
        ("The VERDICT: FIRST", None),
        ("VERDICT: FIRST or SECOND", None),
        ("VERDICT: FIRST\nor rather\nVERDICT: SECOND", None),
        ("VERDICT: FIRST\nBut I am not sure.", None),
        ("VERDICT: BOTH", None),
        ("VERDICT: THIRD", None),
        (RULE, None),
    ],
)
def test_only_a_clear_verdict_counts(reply: str, choice: str | None) -> None:
    assert read_verdict(reply) == choice


def test_texts_go_in_as_they_are() -> None:
    filled = fill(
        "I {instruction} C {context} 1 {first} 2 {second} {other} {}",
        instruction="{first}",
        context="",
        first="{second} \\1",
        second="VERDICT: FIRST",
        reference=None,
    )
    assert filled == "I {first} C (none) 1 {second} \\1 2 VERDICT: FIRST {other} {}" + RULE
    whole = fill(DEFAULT, instruction="Why?", context="c", first="x", second="y", reference=None)
    assert whole.index("Why?") < whole.index("\nx\n") < whole.index("\ny\n")
    assert whole.endswith(RULE)


def test_a_template_must_have_its_fields(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("\ufeffOf {first} and {second} to {instruction} ({context}, {reference})?\n", encoding="utf-8")
    assert read_template(path) == "Of {first} and {second} to {instruction} ({context}, {reference})?"
    path.write_text("Of {first} and {secnod}?", encoding="utf-8")
    with pytest.raises(InputError, match=r"mine.txt: the template lacks \{instruction\}, \{context\}, \{second\}\."):
        read_template(path)
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match="not valid UTF-8 at byte 0"):
        read_template(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_template(tmp_path / "none.txt")
