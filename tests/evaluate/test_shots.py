"""Few-shot prompts against the LM Evaluation Harness: the same examples, drawn in the same order, joined the same."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness_tasks import (
    AT_HAND,
    Rows,
    as_on_the_hub,
    compiled_templates,
    harness_questions,
    harness_task,
    read_jsonl,
    write_jsonl,
)
from roslin.errors import InputError
from roslin.evaluate.question import Choice, Question
from roslin.evaluate.rows import load_questions
from roslin.evaluate.shots import with_shots
from roslin.evaluate.tasks import TASKS, Document, as_instruction


@pytest.fixture(autouse=True, scope="module")
def _fast_harness() -> Iterator[None]:
    with compiled_templates():
        yield


def asked(questions: list[Question]) -> list[tuple[tuple[Choice, ...], int]]:
    return [(question.choices, question.gold) for question in questions]


def documents(name: str, rows: Rows) -> list[Document]:
    return [Document(row, TASKS[name].question(row)) for row in rows]


def ours(name: str, rows: Rows, train: Rows, shots: int, seed: int = 1234) -> list[Question]:
    return with_shots(TASKS[name], documents(name, rows), documents(name, train), shots, seed=seed)


def assert_as_the_harness(name: str, rows: Rows, train: Rows, shots: int, seed: int = 1234) -> None:
    harness = harness_questions(harness_task(name, rows, train), shots=shots, seed=seed)
    assert asked(ours(name, rows, train, shots, seed)) == asked(harness)


@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize("name", ["openbookqa", "arc_easy", "arc_challenge"])
def test_every_few_shot_prompt_at_hand_is_the_harness_s(name: str, shots: int, shared_data: Path) -> None:
    folder = shared_data / "benchmarks"
    rows = [as_on_the_hub(name, row) for row in read_jsonl(folder / f"{AT_HAND[name]}.jsonl")]
    train = [as_on_the_hub(name, row) for row in read_jsonl(folder / f"{name}_train.jsonl")]
    harness = harness_questions(harness_task(name, rows, train), shots=shots)
    assert asked(load_questions(TASKS[name], folder, shots=shots)) == asked(harness)


@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize("name", ["winogrande", "piqa", "boolq"])
def test_examples_may_be_rows_that_are_asked_themselves(name: str, shots: int, shared_data: Path) -> None:
    """Their train splits are not at hand; a pool that overlaps with what is asked stands in, as the harder case."""
    rows = [as_on_the_hub(name, row) for row in read_jsonl(shared_data / "benchmarks" / f"{AT_HAND[name]}.jsonl")]
    assert_as_the_harness(name, rows[:200], rows[150:180], shots)


def scene(number: int) -> dict[str, Any]:
    row = {"ind": number, "activity_label": f"Act {number}", "ctx_a": f"[header] A{number} [title] B.", "ctx_b": "c D"}
    return {**row, "endings": [f"{number}{letter}  [x]." for letter in "abcd"], "label": str(number % 4)}


def blank(number: int) -> dict[str, str]:
    """Each third sentence ends at its blank, so that nothing is left to answer."""
    end = " is what it was." if number % 3 else ""
    answer = "12"[number % 2]
    return {"sentence": f"Of {number}, _{end}", "option1": f"a{number}", "option2": f"b{number}", "answer": answer}


def goal(number: int) -> dict[str, Any]:
    return {"goal": f"goal {number}", "sol1": f"one {number}", "sol2": f"two {number}", "label": number % 2}


def passage(number: int) -> dict[str, Any]:
    return {"question": f"is it {number}", "passage": f"It is {number}.", "idx": number, "label": number % 2}


MAKERS = {"winogrande": blank, "hellaswag": scene, "piqa": goal, "boolq": passage}


@pytest.mark.parametrize("shots", [1, 2, 5])
@pytest.mark.parametrize("name", MAKERS)
def test_copies_of_the_question_are_passed_over_as_the_harness_does(name: str, shots: int) -> None:
    """So many copies that now and then more are drawn than there are spare, and the harness draws again."""
    rows = [MAKERS[name](number) for number in range(12)]
    train = [rows[0], rows[0], rows[0], rows[1], rows[1], *rows[6:], *rows[:2]]
    assert_as_the_harness(name, rows * 3, train, shots)


def test_another_seed_draws_others_as_the_harness_does() -> None:
    rows, train = ([goal(number) for number in numbers] for numbers in (range(9), range(100, 140)))
    assert_as_the_harness("piqa", rows, train, 3, seed=7)
    assert ours("piqa", rows, train, 3, seed=7) != ours("piqa", rows, train, 3)


@pytest.mark.parametrize("name", MAKERS)
def test_an_instruction_holds_its_examples_as_in_the_harness_s_chat(name: str) -> None:
    rows, train = ([MAKERS[name](number) for number in numbers] for numbers in (range(9), range(10, 40)))
    task = harness_task(name, rows, train)
    chat = harness_questions(task, shots=2, chat=lambda messages, **_: messages[-1]["content"])
    assert asked(list(map(as_instruction, ours(name, rows, train, 2)))) == asked(chat)


def test_a_prompt_written_out_by_hand(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "piqa_validation.jsonl", [goal(1)])
    write_jsonl(tmp_path / "piqa_train.jsonl", [goal(8), goal(8)])
    (question,) = load_questions(TASKS["piqa"], tmp_path, shots=1)
    context = "Question: goal 8\nAnswer: one 8\n\nQuestion: goal 1\nAnswer:"
    assert question == Question((Choice(context, " one 1", 5), Choice(context, " two 1", 5)), 1)


def test_too_few_examples_are_told() -> None:
    train = [goal(number) for number in range(10, 13)]
    assert len(ours("piqa", [goal(1)], train, 2)) == 1
    told = r"piqa: 3 examples a question need at least 4 rows of its train split, and there are 3\."
    with pytest.raises(InputError, match=told):
        ours("piqa", [goal(1)], train, 3)


def test_a_pool_of_nothing_but_the_question_is_told() -> None:
    with pytest.raises(
        InputError, match=r"piqa: all but 1 of the rows that examples are drawn from are equal to the question"
    ):
        ours("piqa", [goal(1)], [goal(1)] * 5 + [goal(2)], 2)


def test_examples_need_their_split(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "piqa_validation.jsonl", [goal(1)])
    assert len(load_questions(TASKS["piqa"], tmp_path)) == 1
    with pytest.raises(InputError, match=r"holds no piqa_train\.jsonl"):
        load_questions(TASKS["piqa"], tmp_path, shots=1)
