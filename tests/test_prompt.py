"""Dolly's prompt, byte for byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roslin import prompt

BLURB = "Below is an instruction that describes a task. Write a response that appropriately completes the request."


def test_a_record_without_context() -> None:
    assert prompt.render_record("Name a colour.", "", "Red.") == (
        f"{BLURB}\n\n### Instruction:\nName a colour.\n\n### Response:\nRed.\n\n### End"
    )


def test_a_record_with_context() -> None:
    assert prompt.render_record("Who?", "Ann came.", "Ann.") == (
        f"{BLURB}\n\n### Instruction:\nWho?\n\nInput:\nAnn came.\n\n### Response:\nAnn.\n\n### End"
    )


@given(st.text(), st.text())
def test_the_prompt_is_the_record_up_to_its_response(instruction: str, context: str) -> None:
    whole = prompt.render_record(instruction, context, "R")
    assert whole == prompt.render_prompt(instruction, context) + "R\n\n### End"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("… ### Response:\nRed.\n\n### End", "Red."),
        ("… ### Response:\nRed.\n\n### End and more ### End", "Red."),
        ("… ## Response:\n Red. ", "Red."),
        ("… ### Response:\n", ""),
        ("no key at all", None),
        ("… #Response: C#\n\n#End", "C#"),
        ("#" * 300_000, None),
        ("### Response:\n" + "#" * 300_000, "#" * 300_000),
    ],
)
def test_the_answer_found_in_a_text(text: str, answer: str | None) -> None:
    assert prompt.find_answer(text) == answer
