"""What is seen of an answer's text."""

import json
from pathlib import Path

import pytest

from roslin.evaluate.responses import traits
from roslin.evaluate.responses.traits import loops, repetition
from roslin.prompt import INTRO
from roslin.records import Record

RECORD = Record(
    instruction="Which river flows through Vienna and Budapest?",
    context="The Danube is a river. It flows through ten countries.",
    response="The Danube.",
)


def found(text: str) -> list[str]:
    return traits(RECORD, text, 3).faults


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("The Danube.", []),
        ("It flows through ten countries.", []),
        (" \n", ["empty"]),
        ("", ["empty"]),
        ("which river flows through Vienna and Budapest -- the Danube does", ["echoes the question"]),
        ("River flows through Vienna!", ["echoes the question"]),
        ("through Vienna", []),
        ("The Danube is a river. It flows through ten countries. So it does.", ["echoes the question"]),
        ("The Danube is a river.", []),
        (f"Well. {INTRO}", ["echoes the question"]),
        ("The Danube. ### Instruction: go on", ["holds a key of the prompt"]),
        ("Yes ### Response:\nno", ["holds a key of the prompt"]),
        ("Yes. Yes, yes yes yes yes yes yes", ["repeats itself in a loop"]),
        ("a b c. A b c! a b c", ["repeats itself in a loop"]),
        ("very very very good", []),
    ],
)
def test_faults_are_seen(text: str, faults: list[str]) -> None:
    assert found(text) == faults


def test_repetition_is_the_share_of_four_grams_seen_before() -> None:
    assert repetition(list("abc")) == 0
    assert repetition(list("abcde")) == 0
    # abcd bcda cdab dabc abcd: five, of which one is there twice
    assert repetition(list("abcdabcd")) == pytest.approx(1 / 5)
    assert repetition(["x"] * 23) == pytest.approx(19 / 20)


def test_a_loop_is_three_turns_and_eight_words() -> None:
    assert not loops(list("abcdabcd"))
    assert loops(list("abcdabcdabcd"))
    assert loops(list("xyabcdabcdabcdz"))
    assert not loops(list("ababab"))
    assert loops(list("abababab"))
    assert not loops(list("abcdabcdxabcd"))


def test_words_of_other_scripts_count_too() -> None:
    assert loops(["да", "нет"] * 4)
    assert traits(RECORD, "ДА да Да да да да да да", 8).loops


@pytest.mark.full
def test_people_seldom_echo_and_hardly_ever_loop(dolly_15k: Path) -> None:
    with dolly_15k.open(encoding="utf-8") as lines:
        records = [Record(**json.loads(line)) for line in lines]
    seen = [traits(record, record.response, 0) for record in records]
    assert round(100 * sum(each.echoed for each in seen) / len(seen), 1) == 1.1
    assert sum(each.loops for each in seen) < 10
    assert not any(each.empty or each.keys for each in seen)
