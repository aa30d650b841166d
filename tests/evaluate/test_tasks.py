"""The seven tasks against the LM Evaluation Harness's own: every context, continuation, length and right answer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness_tasks import (
    AT_HAND,
    Rows,
    as_on_the_hub,
    compiled_templates,
    harness_config,
    harness_questions,
    harness_task,
    read_jsonl,
)
from roslin.errors import UsageError
from roslin.evaluate.cells import BadRow
from roslin.evaluate.question import Choice, Question
from roslin.evaluate.rows import load_questions
from roslin.evaluate.tasks import TASKS, as_instruction, find_tasks


@pytest.fixture(autouse=True, scope="module")
def _fast_harness() -> Iterator[None]:
    with compiled_templates():
        yield


def asked(questions: list[Question]) -> list[tuple[tuple[Choice, ...], int]]:
    """All but the cluster, which the harness does not know."""
    return [(question.choices, question.gold) for question in questions]


def ours(name: str, rows: Rows) -> list[Question]:
    return [TASKS[name].question(row) for row in rows]


def assert_asked_as_the_harness_asks(name: str, rows: Rows) -> None:
    assert asked(ours(name, rows)) == asked(harness_questions(harness_task(name, rows)))


@pytest.mark.parametrize("name", AT_HAND)
def test_every_question_at_hand_is_the_harness_s(name: str, shared_data: Path) -> None:
    folder = shared_data / "benchmarks"
    rows = [as_on_the_hub(name, row) for row in read_jsonl(folder / f"{AT_HAND[name]}.jsonl")]
    harness = asked(harness_questions(harness_task(name, rows)))
    assert len(harness) == TASKS[name].size
    assert asked(load_questions(TASKS[name], folder)) == harness
    assert asked(ours(name, rows)) == harness


def test_the_data_s_name_its_split_and_the_metric_are_the_harness_s() -> None:
    for task in TASKS.values():
        config = harness_config(task.name)
        assert (task.path, task.config) == (config["dataset_path"], config.get("dataset_name"))
        assert task.split == config.get("test_split") or config["validation_split"]
        assert task.shots_split == config["training_split"]
        assert task.metric in [metric["metric"] for metric in config["metric_list"]]


def scene(
    ctx_a: str = "A man sits down.",
    ctx_b: str = "he",
    activity: str = "Playing harmonica",
    endings: tuple[str, ...] = ("plays.", "sings.", "leaves.", "sleeps."),
    label: str = "2",
) -> dict[str, Any]:
    row = {"ind": 4, "activity_label": activity, "ctx_a": ctx_a, "ctx_b": ctx_b, "ctx": f"{ctx_a} {ctx_b}"}
    return {**row, "endings": list(endings), "source_id": "activitynet~v_-x", "split": "val", "label": label}


HELLASWAG = [
    scene(),
    scene(ctx_b=""),
    scene(ctx_a="", ctx_b=""),
    scene(ctx_b="THE Man and HIS dog"),
    scene(ctx_b="éCOLE de Paris"),
    scene(ctx_b="ßtart"),
    scene(
        activity="  Home and Garden ", ctx_a="[header] How to paint [title] Buy paint. [step] Go to a shop.", ctx_b=""
    ),
    scene(ctx_a="[header] How to [title] [title] twice", ctx_b="[substeps] look"),
    scene(ctx_a="Two  blanks and   three and    four.", ctx_b="  a  b"),
    scene(ctx_a="A [step]  mark between blanks, [ unclosed and ] closed"),
    scene(ctx_a="[a [nested] mark] here, [over\ntwo lines] there"),
    scene(ctx_a="Title[title] without a blank. [title]Right behind. [title]"),
    scene(ctx_a="日本語 [title] naïve café — “quoted” 🎻"),
    scene(ctx_a="{{ctx_b}} {% raw %} \\n 'single' \"double\""),
    scene(endings=("  blanks around  ", "[title] Sing [step]  loud.", "x [title] y", "z [unclosed")),
    scene(endings=("a\nb", "tab\t", "🎻🎻", "   "), label="0"),
    scene(endings=("one", "two"), label="1"),
    scene(endings=("one", "two", "three", "four", "five"), label="4"),
]


def test_hellaswag_s_rows_are_cleaned_as_the_harness_cleans_them() -> None:
    assert_asked_as_the_harness_asks("hellaswag", HELLASWAG)


def test_a_hellaswag_question_worked_out_by_hand() -> None:
    row = scene(
        activity="Home",
        ctx_a="[header] How to paint [title] Buy   paint.",
        ctx_b="[step] GO now",
        endings=("and  sing.", "[title] sit [step] down.", "c", "d"),
    )
    found = TASKS["hellaswag"].question(row)
    assert found.choices[0] == Choice("Home: How to paint. Buy  paint. go now", " and sing.", 9)
    assert found.choices[1] == Choice(found.choices[0].context, "  sit down.", 10)
    assert found.gold == 2


PIECES = st.sampled_from(
    ["[", "]", "[title]", " [title]", "[step]", " ", "  ", "   ", "\n", ".", "a", "B", "é", "ß", "{{", "'"]
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)
SCENES = st.builds(
    scene,
    ctx_a=TEXTS,
    ctx_b=TEXTS,
    activity=TEXTS,
    endings=st.tuples(TEXTS, TEXTS, TEXTS, TEXTS),
    label=st.sampled_from("0123"),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(SCENES, min_size=1, max_size=8))
def test_any_hellaswag_row_is_cleaned_as_the_harness_cleans_it(rows: Rows) -> None:
    rows[0]["endings"][0] = "x" + rows[0]["endings"][0]  # the harness looks at the first letter of its first question
    rows[0]["endings"][1:] = ["y", "z", "w"]
    assert_asked_as_the_harness_asks("hellaswag", rows)


def lettered(texts: list[str], labels: str | list[str], key: str, **fields: str) -> dict[str, Any]:
    return {"id": "1", **fields, "choices": {"text": texts, "label": list(labels)}, "answerKey": key}


ODD_ROWS = {
    "arc_easy": [
        lettered(["one", "two", "three"], "ABC", "C", question="How many?"),
        lettered(["a", "b", "c", "d"], "1234", "3", question="12"),
        lettered(["a'b", 'c"d', "\\n", " e "], "ABCD", "A", question="Ends with a line\n"),
        lettered(["a", "b", "c", "d", "e"], "ABCDE", "E", question="{{answerKey}} {# no #} 🎻"),
    ],
    "openbookqa": [
        lettered(["one", "two"], "AB", "B", question_stem="7"),
        lettered(["one", "two", "3", "4"], "ABCD", " D", question_stem="[1, 2]"),
        lettered(["", "two", "3", "4"][1:], "ABC", "\tA", question_stem=""),
    ],
    "winogrande": [
        {"sentence": "The cup fits, as _ is small.", "option1": "cup", "option2": "case", "answer": "1"},
        {"sentence": "_ ends\there _ twice  ", "option1": " a ", "option2": "b", "answer": "2"},
        {"sentence": "At its end stands _", "option1": "5", "option2": "6", "answer": "2"},
    ],
    "piqa": [
        {"goal": "3", "sol1": 'it\'s "so"', "sol2": "back\\slash", "label": 1},
        {"goal": "{{sol1}}", "sol1": "line\nline", "sol2": "naïve 🎻", "label": 0},
        {"goal": "", "sol1": "[1]", "sol2": " 2", "label": 0},
    ],
    "boolq": [
        {"question": "is it", "passage": "It is. {{label}}", "idx": 0, "label": 1},
        {"question": "is it?", "passage": "\n\nIt is not.  ", "idx": 1, "label": 0},
    ],
}


@pytest.mark.parametrize("name", ODD_ROWS)
def test_odd_rows_are_asked_as_the_harness_asks_them(name: str) -> None:
    assert_asked_as_the_harness_asks(name, ODD_ROWS[name])


@pytest.mark.parametrize("name", [*ODD_ROWS, "hellaswag"])
def test_an_instruction_continues_as_the_harness_continues_a_chat(name: str) -> None:
    rows = ODD_ROWS.get(name, HELLASWAG)
    chat = harness_questions(harness_task(name, rows), chat=lambda messages, **_: messages[-1]["content"])
    assert asked(list(map(as_instruction, ours(name, rows)))) == asked(chat)


def test_questions_of_one_passage_share_a_cluster() -> None:
    rows = [{"question": q, "passage": p, "label": 0} for q, p in (("a", "one"), ("b", "two"), ("c", "one"))]
    first, second, third = (question.cluster for question in ours("boolq", rows))
    assert first == third != second
    assert all(question.cluster == "" for question in ours("piqa", ODD_ROWS["piqa"]))


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("arc_easy", {"answerKey": "E"}, "answerKey: is 'E'; expected is one of the labels 'A', 'B', 'C'."),
        ("arc_easy", {"question": None}, "question: is None; expected is a text."),
        (
            "arc_easy",
            {"choices": ["a", "b"]},
            "choices: is ['a', 'b']; expected is {\"text\": [...], \"label\": [...]}.",
        ),
        (
            "winogrande",
            {"sentence": "No blank."},
            "sentence: is 'No blank.'; expected is a text with a blank, written _.",
        ),
        ("winogrande", {"answer": ""}, "answer: is ''; expected is one of the labels '1', '2'."),
        ("piqa", {"label": 2}, "label: is 2; expected is the place of the right choice, from 0 to 1."),
        ("piqa", {"label": True}, "label: is True; expected is the place of the right choice, from 0 to 1."),
        ("boolq", {"label": -1}, "label: is -1; expected is the place of the right choice, from 0 to 1."),
        ("hellaswag", {"label": ""}, "label: is ''; expected is the place of the right choice, from 0 to 3."),
        ("hellaswag", {"endings": "abcd"}, "endings: is 'abcd'; expected is two texts or more, in a list."),
        ("hellaswag", {"endings": ["a", 2]}, "endings: is ['a', 2]; expected is two texts or more, in a list."),
    ],
)
def test_a_bad_cell_is_told_with_what_is_expected(name: str, change: dict[str, Any], told: str) -> None:
    row = {**(HELLASWAG if name == "hellaswag" else ODD_ROWS[name])[0], **change}
    with pytest.raises(BadRow) as caught:
        TASKS[name].question(row)
    assert list(map(str, caught.value.faults)) == [told]


def test_all_faults_of_a_row_are_told_at_once() -> None:
    with pytest.raises(BadRow) as caught:
        TASKS["piqa"].question({"goal": 1, "sol1": None, "sol2": "b", "label": "x"})
    assert [fault.column for fault in caught.value.faults] == ["sol1", "goal", "label"]


def test_unknown_tasks_are_told_with_those_there_are() -> None:
    assert [task.name for task in find_tasks(["boolq", "piqa"])] == ["boolq", "piqa"]
    with pytest.raises(UsageError, match=r"No such task: mmlu, arc\. The tasks are openbookqa, arc_easy, "):
        find_tasks(["mmlu", "boolq", "arc"])
