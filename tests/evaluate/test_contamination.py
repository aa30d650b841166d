"""Contamination: planted overlaps, a slow plain count, the harness's own runs of words, and dolly-15k."""

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.decontamination.janitor import Janitor, word_ngrams

from harness_tasks import AT_HAND
from roslin.evaluate.contamination import WORDS, ContaminationReport, contamination, written_out
from roslin.evaluate.question import Choice, Question
from roslin.evaluate.rows import load_questions
from roslin.evaluate.tasks import TASKS
from roslin.evaluate.word_runs import RunIndex, words_of
from roslin.records import Record, load

JANITOR = Janitor()
"""The harness's own normaliser."""


def question(text: str, answer: str = "yes") -> Question:
    context = f"Question: {text}\nAnswer:"
    return Question((Choice(context, " never so", 8), Choice(context, f" {answer}", len(answer))), 1)


def numbered(first: int, count: int) -> str:
    return " ".join(f"w{number}" for number in range(first, first + count))


def test_a_planted_question_is_found_with_its_words_and_record() -> None:
    questions = [question(numbered(0, 30)), question(numbered(100, 30))]
    records = [
        Record(instruction="Say it.", response=f"Before, {numbered(5, 13).upper()}! After"),
        Record(instruction="Say more.", context=f"({numbered(2, 20)})", response="end"),
        Record(instruction="Too few.", response=numbered(100, 12)),
    ]
    report = contamination(records, {"task": questions})
    task = report.tasks["task"]
    assert (report.records, task.questions, task.touched, task.share) == (3, 2, 1, 0.5)
    assert task.touched_keys == {questions[0].key}
    (worst,) = task.worst
    assert (worst.key, worst.record, worst.words) == (questions[0].key, 2, numbered(2, 13))
    assert worst.share == 8 / 19  # 30 words and the answer have 19 runs; the second record, which holds the first's, 8


def test_runs_of_several_records_count_together() -> None:
    records = [Record(instruction=numbered(0, 15), response="x"), Record(instruction=numbered(10, 15), response="y")]
    (worst,) = contamination(records, {"task": [question(numbered(0, 24), "w24")]}).tasks["task"].worst
    assert (worst.record, worst.share) == (1, 6 / 13)


def test_a_question_may_stand_in_the_instruction_and_its_answer_in_the_response() -> None:
    record = Record(instruction=f"{numbered(0, 12)}?", response="It is")
    assert contamination([record], {"task": [question(numbered(0, 12), "it")]}).tasks["task"].touched == 1
    assert contamination([record], {"task": [question(numbered(0, 12), "no")]}).tasks["task"].touched == 0


def test_short_questions_are_counted_apart_and_must_stand_whole() -> None:
    questions = [question("Is it so?", "yes"), question("Is it not?", "yes"), question(numbered(0, 20))]
    records = [
        Record(instruction="Well, is it so -- yes!", response="Is it not."),
        Record(instruction="a", response="b"),
    ]
    task = contamination(records, {"task": questions}).tasks["task"]
    assert (task.questions, task.touched, task.short_questions, task.short_touched) == (1, 0, 2, 1)
    assert task.touched_keys == {questions[0].key}


def test_tasks_are_counted_by_themselves_and_a_shared_passage_touches_each_of_its_questions() -> None:
    passage = numbered(0, 40)
    tasks = {
        "one": [question(f"{passage} {end}") for end in ("first", "second")],
        "two": [question(passage), question(numbered(200, 40))],
        "none": [],
    }
    report = contamination([Record(instruction="Read.", context=passage, response="Read.")], tasks)
    assert [(task.questions, task.touched) for task in report.tasks.values()] == [(2, 2), (2, 1), (0, 0)]
    assert report.tasks["none"].share == 0.0


def test_records_pass_by_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roslin.evaluate.contamination._RECORDS_A_BLOCK", 3)
    plain = [Record(instruction=f"number {n}", response="nothing") for n in range(10)]
    plain[7] = Record(instruction="here", response=numbered(0, 20))
    report = contamination(iter(plain), {"task": [question(numbered(0, 20))]})
    assert (report.records, report.tasks["task"].worst[0].record) == (10, 8)


def test_words_do_not_run_on_from_one_record_to_the_next() -> None:
    records = [Record(instruction="a", response=numbered(0, 7)), Record(instruction=numbered(7, 7), response="b")]
    assert contamination(records, {"task": [question(numbered(0, 14))]}).tasks["task"].touched == 0


def test_no_records_touch_nothing() -> None:
    report = contamination([], {"task": [question(numbered(0, 20))]})
    assert (report.records, report.tasks["task"].touched) == (0, 0)


def test_the_report_is_json() -> None:
    questions = [question(numbered(0, 20)), question("short")]
    report = contamination([Record(instruction="a", response=numbered(0, 20))], {"task": questions})
    worst = {"key": questions[0].key, "words": numbered(0, 13), "record": 1, "share": 8 / 9}
    counts = {"questions": 1, "touched": 1, "share": 1.0, "short_questions": 1, "short_touched": 0}
    tasks = {"task": {**counts, "worst": [worst]}}
    assert json.loads(json.dumps(report.as_object())) == {"words": 13, "records": 1, "tasks": tasks}


def test_how_questions_are_written_out() -> None:
    boolq = TASKS["boolq"].question({"passage": "It is.", "question": "is it", "label": 1})
    assert written_out(boolq) == "It is.\nis it? yes"
    arc = TASKS["arc_easy"].question({"question": "Is it?\nWell", "choices": ["a", "b"], "gold": 1})
    assert written_out(arc) == "Is it?\nWell b"
    row = {"sentence": "So _ is it.", "option1": "this", "option2": "that", "answer": "2"}
    assert written_out(TASKS["winogrande"].question(row)) == "So that is it."


@given(st.text(alphabet=st.characters(codec="ascii", exclude_characters="\x1c\x1d\x1e\x1f")))
def test_words_are_the_harness_s_for_ascii(text: str) -> None:
    assert words_of(text) == JANITOR.normalize_string(text).split()


def test_words_of_other_scripts_lose_their_punctuation_too() -> None:
    assert words_of("“It’s” — naïve…, ¿QUÉ? £5 हिन्दी। 日本、語") == ["its", "naïve", "qué", "5", "हिन्दी", "日本語"]


def plain_count(
    texts: Sequence[Sequence[str]], others: Sequence[Sequence[str]], length: int
) -> set[tuple[int, int, int]]:
    """Every (other text, indexed text, first word) in the plainest way."""
    found = set()
    for (place, text), (number, other) in itertools.product(enumerate(texts), enumerate(others)):
        size = min(length, len(text))
        runs = {tuple(other[at : at + size]) for at in range(len(other) - size + 1)}
        found |= {(number, place, at) for at in range(len(text) - size + 1) if tuple(text[at : at + size]) in runs}
    return found


TEXTS = st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=9), max_size=5)


@settings(max_examples=300, deadline=None)
@given(texts=TEXTS, others=TEXTS, length=st.integers(1, 5))
def test_shared_runs_are_those_of_a_plain_count(texts: list[list[str]], others: list[list[str]], length: int) -> None:
    shared = RunIndex(texts, length).shared(others)
    found = zip(shared.streamed_H.tolist(), shared.indexed_H.tolist(), shared.start_H.tolist(), strict=True)
    assert set(found) == plain_count(texts, others, length)


@pytest.fixture(scope="module")
def asked(shared_data: Path) -> dict[str, list[Question]]:
    return {name: load_questions(TASKS[name], shared_data / "benchmarks") for name in AT_HAND}


@pytest.fixture(scope="module")
def records(dolly_15k: Path) -> list[Record]:
    return load([dolly_15k])


@pytest.fixture(scope="module")
def report(asked: dict[str, list[Question]], records: list[Record]) -> ContaminationReport:
    return contamination(records, asked)


def test_dolly_15k_touches_boolq_s_passages_and_little_else(report: ContaminationReport) -> None:
    """Both took passages from Wikipedia."""
    counts = {name: (t.questions, t.touched, t.short_questions, t.short_touched) for name, t in report.tasks.items()}
    assert counts == {
        "openbookqa": (220, 0, 280, 0),
        "arc_easy": (1975, 0, 401, 0),
        "winogrande": (1267, 0, 0, 0),
        "arc_challenge": (1063, 0, 109, 1),
        "piqa": (1432, 0, 406, 0),
        "boolq": (3270, 48, 0, 0),
    }


def test_the_words_that_are_reported_stand_in_the_record_that_is_reported(
    report: ContaminationReport, records: list[Record]
) -> None:
    worst = report.tasks["boolq"].worst
    assert len(worst) == 10
    assert [overlap.share for overlap in worst] == sorted((overlap.share for overlap in worst), reverse=True)
    for overlap in worst:
        record = records[overlap.record - 1]
        told = words_of(f"{record.instruction} {record.context} {record.response}")
        assert f" {overlap.words} " in f" {' '.join(told)} "
        assert len(overlap.words.split()) == WORDS


def harness_runs(text: str) -> Iterator[str]:
    yield from word_ngrams(JANITOR.normalize_string(text), WORDS)


def test_the_touched_questions_are_those_of_the_harness_s_runs(
    asked: dict[str, list[Question]], records: list[Record]
) -> None:
    """Questions and records of ASCII alone, on which both agree about punctuation."""
    kept = {name: [one for one in found if written_out(one).isascii()] for name, found in asked.items()}
    texts = [f"{one.instruction} {one.context} {one.response}" for one in records]
    plain = [(record, text) for record, text in zip(records, texts, strict=True) if text.isascii()]
    owners: dict[str, set[str]] = {}
    for one in itertools.chain(*kept.values()):
        for run in harness_runs(written_out(one)):
            owners.setdefault(run, set()).add(one.key)
    expected: set[str] = set()
    for _, text in plain:
        for run in harness_runs(text):
            expected |= owners.get(run, set())
    found = contamination([record for record, _ in plain], kept)
    long = {one.key for one in itertools.chain(*kept.values()) if len(words_of(written_out(one))) >= WORDS}
    touched = set().union(*(task.touched_keys for task in found.tasks.values()))
    assert expected
    assert touched & long == expected
