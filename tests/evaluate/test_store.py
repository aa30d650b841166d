"""The store of results: kept at once, found again by hashes, read by any metric."""

import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any
from unittest.mock import patch

import pytest

from roslin.errors import InputError, MachineError
from roslin.evaluate.question import Choice, Question
from roslin.evaluate.scorer import ChoiceScore
from roslin.evaluate.store import Identity, Run, Store

RAW = Identity("weights-1", "raw", 0, "float32", "code-1")


def question(text: str, gold: int = 0, characters: tuple[int, ...] = (5, 10), cluster: str = "") -> Question:
    choices = tuple(Choice(text, f" choice {place}", length) for place, length in enumerate(characters))
    return Question(choices, gold, cluster)


def scored(*log_likelihoods: float) -> list[ChoiceScore]:
    return [ChoiceScore(value, tokens=2) for value in log_likelihoods]


QUESTIONS = [question("a"), question("b", gold=1), question("c", gold=1, cluster="passage")]
ANSWERS = [scored(-1.0, -3.0), scored(-1.0, -1.9), scored(-2.0, -3.0)]
"""By acc the first choice of each; by acc_norm, -0.2 against -0.3, -0.2 against -0.19, -0.4 against -0.3."""


def filled(store: Store, identity: Identity = RAW, name: str = "mine", upto: int = 3) -> Run:
    run = store.run(identity, name)
    run.ask("piqa", QUESTIONS)
    run.add("piqa", list(zip(QUESTIONS, ANSWERS, strict=True))[:upto])
    return run


def test_any_metric_is_read_without_a_model(tmp_path: Path) -> None:
    store = Store(tmp_path / "results.sqlite")
    filled(store)
    [by_acc] = store.scores("acc")
    [by_norm] = store.scores("acc_norm")
    [published] = Store.open(store.path).scores()
    assert by_acc.tasks["piqa"].right.tolist() == [True, False, False]
    assert by_norm.tasks["piqa"].right.tolist() == [True, True, True]
    assert published.tasks["piqa"].metric == "acc_norm"
    assert published.tasks["piqa"].clusters == ["", "", "passage"]
    assert (published.name, published.profile, published.shots, published.dtype) == ("mine", "raw", 0, "float32")


def test_of_equal_choices_the_first_is_picked_and_one_without_text_never_by_acc_norm(tmp_path: Path) -> None:
    run = Store(tmp_path / "results.sqlite").run(RAW, "mine")
    asked = [question("tie", gold=0), question("empty", gold=1, characters=(0, 4))]
    run.ask("piqa", asked)
    run.add("piqa", zip(asked, [scored(-1.0, -1.0), scored(-0.1, -9.0)], strict=True))
    assert run.scores("piqa", "acc").right.tolist() == [True, False]
    assert run.scores("piqa", "acc_norm").right.tolist() == [False, True]


def test_a_run_goes_on_where_it_was(tmp_path: Path) -> None:
    store = Store(tmp_path / "results.sqlite")
    filled(store, upto=1)
    again = Store(store.path).run(RAW, "mine")
    assert again.ask("piqa", QUESTIONS) == [1, 2]
    assert again.ask("arc_easy", QUESTIONS) == [0, 1, 2]
    assert again.scores("piqa", "acc").keys == [QUESTIONS[0].key]


@pytest.mark.parametrize(
    "other",
    [
        replace(RAW, fingerprint="weights-2"),
        replace(RAW, profile="instruct"),
        replace(RAW, shots=5),
        replace(RAW, dtype="bfloat16"),
        replace(RAW, code="code-2"),
    ],
)
def test_what_depends_on_something_else_is_asked_anew(tmp_path: Path, other: Identity) -> None:
    store = Store(tmp_path / "results.sqlite")
    filled(store)
    assert store.run(other, "mine").ask("piqa", QUESTIONS) == [0, 1, 2]
    assert store.run(RAW, "another name").ask("piqa", QUESTIONS) == []


def test_a_question_that_changed_is_asked_anew(tmp_path: Path) -> None:
    run = filled(Store(tmp_path / "results.sqlite"))
    changed = [QUESTIONS[0], replace(QUESTIONS[1], gold=0), question("d")]
    assert run.ask("piqa", changed) == [1, 2]


def test_equal_questions_are_asked_once_and_count_each(tmp_path: Path) -> None:
    run = Store(tmp_path / "results.sqlite").run(RAW, "mine")
    twice = [QUESTIONS[0], QUESTIONS[1], QUESTIONS[0]]
    assert run.ask("piqa", twice) == [0, 1]
    run.add("piqa", zip(QUESTIONS[:2], ANSWERS[:2], strict=True))
    assert run.scores("piqa", "acc").right.tolist() == [True, False, True]


def test_of_several_runs_of_a_model_the_fullest_counts_and_then_the_latest(tmp_path: Path) -> None:
    store = Store(tmp_path / "results.sqlite")
    filled(store)
    filled(store, replace(RAW, code="code-2"), upto=1)
    [kept] = store.scores()
    assert len(kept.tasks["piqa"].keys) == 3
    run = store.run(replace(RAW, code="code-3"), "mine")
    run.ask("piqa", QUESTIONS)
    run.add("piqa", zip(QUESTIONS, [scored(-3.0, -1.0)] * 3, strict=True))
    [latest] = store.scores("acc")
    assert latest.tasks["piqa"].right.tolist() == [False, True, True]


def test_of_several_weights_under_one_name_those_asked_last_count(tmp_path: Path) -> None:
    """A model that was tuned again in its folder is not shown by what it was before."""
    store = Store(tmp_path / "results.sqlite")
    filled(store)
    filled(store, replace(RAW, fingerprint="weights-2"), upto=1)
    assert [len(scores.tasks["piqa"].keys) for scores in store.scores()] == [1]
    filled(store)
    assert [len(scores.tasks["piqa"].keys) for scores in store.scores()] == [3]


def test_the_first_few_questions_do_not_hide_the_whole_that_was_asked(tmp_path: Path) -> None:
    store = Store(tmp_path / "results.sqlite")
    run = filled(store)
    run.ask("piqa", QUESTIONS[:2])
    assert len(run.scores("piqa", "acc").keys) == 2
    assert len(store.scores()[0].tasks["piqa"].keys) == 3
    run.ask("piqa", QUESTIONS[1:])  # other data: the first question is no longer in it
    assert len(store.scores()[0].tasks["piqa"].keys) == 2


def test_tasks_that_this_roslin_does_not_know_are_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path / "results.sqlite")
    run = filled(store)
    run.ask("a task to come", QUESTIONS)
    run.add("a task to come", zip(QUESTIONS, ANSWERS, strict=True))
    for metric in (None, "acc"):
        assert [list(scores.tasks) for scores in store.scores(metric)] == [["piqa"]]


def test_a_score_that_is_no_number_is_refused_with_its_question(tmp_path: Path) -> None:
    run = Store(tmp_path / "results.sqlite").run(RAW, "mine")
    run.ask("piqa", QUESTIONS)
    with pytest.raises(InputError, match="log_likelihood"):
        run.add("piqa", [(QUESTIONS[0], scored(float("nan"), -1.0))])
    assert run.ask("piqa", QUESTIONS) == [0, 1, 2]


def test_a_model_has_the_name_that_it_was_given_last(tmp_path: Path) -> None:
    store = Store(tmp_path / "results.sqlite")
    filled(store)
    store.run(RAW, "renamed").ask("piqa", QUESTIONS)
    assert [scores.name for scores in store.scores()] == ["renamed"]


def test_runs_that_do_not_compare_stand_apart(tmp_path: Path) -> None:
    store = Store(tmp_path / "results.sqlite")
    for identity in (RAW, replace(RAW, profile="instruct"), replace(RAW, shots=5), replace(RAW, dtype="bfloat16")):
        filled(store, identity)
    kinds = {(scores.profile, scores.shots, scores.dtype) for scores in store.scores()}
    assert kinds == {("raw", 0, "float32"), ("instruct", 0, "float32"), ("raw", 5, "float32"), ("raw", 0, "bfloat16")}


def test_scores_are_added_and_never_changed(tmp_path: Path) -> None:
    run = filled(Store(tmp_path / "results.sqlite"))
    run.add("piqa", [(QUESTIONS[0], scored(-9.0, -1.0))])
    assert run.scores("piqa", "acc").right.tolist() == [True, False, False]


def test_what_is_added_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    store = Store(tmp_path / "results.sqlite")
    run = store.run(RAW, "mine")
    run.ask("piqa", QUESTIONS)

    def broken_off():
        yield QUESTIONS[0], ANSWERS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.add("piqa", broken_off())
    assert run.ask("piqa", QUESTIONS) == [0, 1, 2]


def test_truncated_questions_are_counted(tmp_path: Path) -> None:
    run = Store(tmp_path / "results.sqlite").run(RAW, "mine")
    run.ask("piqa", QUESTIONS)
    cut = [ChoiceScore(-1.0, 2, truncated=True), ChoiceScore(-2.0, 2, truncated=True)]
    run.add("piqa", [(QUESTIONS[0], cut), (QUESTIONS[1], ANSWERS[1])])
    assert run.truncated("piqa") == 1


def test_two_processes_write_to_one_store(tmp_path: Path) -> None:
    path = tmp_path / "results.sqlite"
    first, second = filled(Store(path)), Store(path).run(replace(RAW, dtype="bfloat16"), "mine")
    second.ask("piqa", QUESTIONS)
    second.add("piqa", zip(QUESTIONS, ANSWERS, strict=True))
    assert first.scores("piqa", "acc").keys == second.scores("piqa", "acc").keys


def test_a_store_is_made_once_by_however_many_at_once(tmp_path: Path) -> None:
    path = tmp_path / "results.sqlite"
    begin = Barrier(8)

    def make(number: int) -> int:
        begin.wait()
        return len(Store(path).run(replace(RAW, shots=number), "mine").ask("piqa", QUESTIONS))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(make, range(8))) == [3] * 8


def test_what_a_killed_process_had_added_is_there(tmp_path: Path) -> None:
    """Killed while it holds the file: the next one finds what was added, not what was about to be, and can write."""
    store = Store(tmp_path / "results.sqlite")
    filled(store, upto=2)
    code = (
        "import os, signal, sqlite3, sys; database = sqlite3.connect(sys.argv[1]);"
        "database.execute('PRAGMA cache_size = 1'); database.execute('BEGIN IMMEDIATE');"
        "database.execute('DELETE FROM choice'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(store.path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert filled(Store(store.path)).scores("piqa", "acc").right.tolist() == [True, False, False]


def test_results_are_read_from_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    store = Store(tmp_path / "results.sqlite")
    filled(store)
    store.path.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        assert [scores.name for scores in Store.open(store.path).scores()] == ["mine"]
    finally:
        tmp_path.chmod(0o755)


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    text, other = tmp_path / "text.sqlite", tmp_path / "other.sqlite"
    text.write_text("no database, but a text that is long enough to be looked at " * 20)
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE something (else_ INTEGER)")
    for path in (text, other):
        with pytest.raises(InputError, match=path.name):
            Store(path)
    with pytest.raises(InputError, match="roslin eval MODEL"):
        Store.open(tmp_path / "missing.sqlite")


def test_a_full_disk_is_the_machine_s(tmp_path: Path) -> None:
    store = Store(tmp_path / "results.sqlite")
    run = filled(store, upto=1)
    with sqlite3.connect(store.path) as database:
        [pages] = database.execute("PRAGMA page_count").fetchone()
    connect = sqlite3.connect

    def small(*where: Any, **how: Any) -> sqlite3.Connection:
        database = connect(*where, **how)
        database.execute(f"PRAGMA max_page_count = {pages}")
        return database

    many = [question(f"{number}" * 100) for number in range(2000)]
    with patch("sqlite3.connect", small), pytest.raises(MachineError, match="make room"):
        run.add("piqa", [(each, scored(-1.0, -2.0)) for each in many])
