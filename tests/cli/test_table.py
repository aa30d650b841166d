"""`roslin table` as people and scripts run it, on a store of results."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from in_process import Ended, Run, command_in
from made_runs import drawn_run
from roslin.cli.table import USUAL_STORE, compare_all
from roslin.cli.table_text import show_comparisons, show_gaps, show_table, table_notes
from roslin.errors import UsageError
from roslin.evaluate.published import COLUMNS, PUBLISHED_TABLE
from roslin.evaluate.question import Choice, Question
from roslin.evaluate.scorer import ChoiceScore
from roslin.evaluate.scores import Profile
from roslin.evaluate.store import DEFAULT_STORE, Identity, Store
from roslin.evaluate.table import make_table
from roslin.evaluate.verdicts import gaps

QUESTIONS = 120


@pytest.fixture
def roslin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`roslin table` in this process."""

    def run(*words: str, cwd: Path) -> Ended:
        return command_in(cwd, monkeypatch, capsys)("table", *words)

    return run


def keep(store: Store, name: str, *, seed: int, profile: Profile = "raw", tasks: Sequence[str] = COLUMNS) -> None:
    """A run of two-choice questions, of which about three in four are right."""
    run = store.run(Identity(f"{name}-{seed}", profile, 0, "float32", "test"), name)
    for task in tasks:
        right = np.random.default_rng([seed, COLUMNS.index(task)]).random(QUESTIONS) < 0.75
        questions = [
            Question((Choice(f"{task} {number}?", " this", 4), Choice("", " that", 4)), 0, f"{number // 2}")
            for number in range(QUESTIONS)
        ]
        run.ask(task, questions)
        scores = [(ChoiceScore(-1.0, 1), ChoiceScore(-2.0 if good else -0.5, 1)) for good in right.tolist()]
        run.add(task, zip(questions, scores, strict=True))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store where it is looked for."""
    folder = tmp_path_factory.mktemp("results")
    store = Store(folder / DEFAULT_STORE)
    keep(store, "mine", seed=1)
    keep(store, "databricks/dolly-v2-7b", seed=2)
    keep(store, "half", seed=3, tasks=("piqa", "boolq"))
    keep(store, "mine", seed=4, profile="instruct")
    return folder


def test_the_usual_store_is_the_stores_own() -> None:
    assert USUAL_STORE == DEFAULT_STORE


def test_without_results_the_published_rows_stand_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "roslin", "table"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    names = [line.split()[0] for line in shown.stdout.splitlines() if "/" in line.split(" ")[0]]
    assert names == [row.name for row in PUBLISHED_TABLE]
    assert "0.348" in shown.stdout
    assert "±.042" in shown.stdout
    assert not list(tmp_path.iterdir())


def test_own_runs_stand_beside_them(roslin: Run, results: Path, tmp_path: Path) -> None:
    shown = roslin("--format", "json", "--against", "mine", "--png", str(tmp_path / "plot.png"), cwd=results)
    assert shown.code == 0, shown.err
    assert f"Wrote {tmp_path / 'plot.png'}\n" in shown.err
    found = json.loads(shown.out)
    own = {row["label"]: row for row in found["rows"] if row["source"] == "own"}
    assert own.keys() == {"mine", "databricks/dolly-v2-7b", "half"}
    assert own["half"]["gmean"] is None
    assert own["half"]["missing"] == list(COLUMNS[:5])
    right = np.random.default_rng([1, 0]).random(QUESTIONS) < 0.75
    cell = own["mine"]["tasks"]["openbookqa"]
    assert (cell["right"], cell["questions"], cell["of"], cell["clusters"]) == (int(right.sum()), QUESTIONS, 500, 60)
    assert found["left_out"] == [{"profile": "instruct", "shots": 0, "runs": 1}]
    compared = [(each["model"], each["against"], each["paired"]) for each in found["comparisons"]]
    assert compared == [("databricks/dolly-v2-7b", "mine", True), ("half", "mine", True)]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_instruct_has_a_table_of_its_own(roslin: Run, results: Path) -> None:
    shown = roslin("--profile", "instruct", "--format", "csv", "--store", str(results / DEFAULT_STORE), cwd=results)
    rows = list(csv.DictReader(io.StringIO(shown.out)))
    assert [(row["model"], row["source"]) for row in rows] == [("mine", "own")]


def test_gaps(roslin: Run, tmp_path: Path) -> None:
    shown = roslin("--gaps", cwd=tmp_path)
    said = " ".join(shown.out.split())
    assert "Of 8 gaps in gmean, 2 are more than noise when each is tested alone" in said
    assert "and 0 when corrected" in said
    assert len(roslin("--gaps", "--format", "csv", cwd=tmp_path).out.splitlines()) == 9
    found = json.loads(roslin("--gaps", "--format", "json", cwd=tmp_path).out)
    assert (len(found["gaps"]), len(found["notes"])) == (8, 3)
    for words in (("--against", "mine"), ("--store", "none.sqlite"), ("--profile", "instruct"), ("--shots", "5")):
        refused = roslin("--gaps", *words, cwd=tmp_path)
        assert (refused.code, refused.out) == (2, "")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--store", "none.sqlite"), 1, "no results here"),
        (("--no-published", "--store", "{results}", "--shots", "5"), 1, "--profile instruct --shots 0"),
        (("--no-published",), 1, "roslin eval MODEL"),
        (("--against", "none", "--store", "{results}"), 2, "EleutherAI/gpt-neox-20b"),
        (("--against", "", "--store", "{results}"), 2, "no row called"),
        (("--against", "EleutherAI/gpt-j-6B"), 2, "no own run"),
        (("--format", "pdf"), 2, "pdf"),
    ],
)
def test_what_cannot_be_shown_is_told(
    roslin: Run, words: Sequence[str], code: int, said: str, results: Path, tmp_path: Path
) -> None:
    refused = roslin(*(word.format(results=results / DEFAULT_STORE) for word in words), cwd=tmp_path)
    assert (refused.code, refused.out) == (code, "")
    assert said in refused.err


def test_a_published_row_comes_before_ones_own_run_of_its_name() -> None:
    found = make_table([drawn_run("mine", questions=50), drawn_run("databricks/dolly-v2-7b", questions=50)])
    by_counts = compare_all(found, "databricks/dolly-v2-7b")
    assert [(each.name, each.paired) for each in by_counts] == [(row.label, False) for row in found.own]
    [paired] = compare_all(found, "own:databricks/dolly-v2-7b")
    assert (paired.name, paired.paired) == ("mine", True)
    with pytest.raises(UsageError, match="no row called own:none"):
        compare_all(found, "own:none")


@pytest.mark.parametrize("width", [60, 76, 80, 90, 120])
def test_gaps_lose_nothing_in_a_narrow_terminal(width: int) -> None:
    out = io.StringIO()
    found = gaps(make_table([]).rows)
    show_gaps(found, Console(file=out, width=width))
    shown = out.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    for row, times in zip(PUBLISHED_TABLE, [1] + [2] * 7 + [1], strict=True):
        assert shown.count(f"{row.name} ") == times
    apart = [task for gap in found for task, verdict in gap.comparison.verdicts.items() if verdict.differs]
    for task in ("arc_easy", "hellaswag", "boolq"):
        assert len([line for line in shown.splitlines() if line.rstrip().endswith(f" {task}")]) == apart.count(task)
    assert ("[+.003, +.037]" in shown) == (width >= 76)


@pytest.mark.parametrize("width", [60, 80, 110, 140, 200])
def test_everything_fits_the_terminal(width: int) -> None:
    runs = [drawn_run("a/name[bold]" + "x" * 40, accuracy=0.9), drawn_run(questions=40), drawn_run(tasks=("piqa",))]
    found = make_table([*runs, drawn_run(profile="instruct")])
    out = io.StringIO()
    console = Console(file=out, width=width)
    show_table(found, console)
    show_comparisons(compare_all(found, "databricks/dolly-v1-6b"), console)
    show_gaps(gaps(make_table([]).rows), console)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "a/name[bold]" in out.getvalue()
    assert "…" not in out.getvalue()
    [*_, hellaswag] = [line for line in lines if line.startswith("hellaswag")]
    assert "differs" in hellaswag
    assert hellaswag.rstrip().endswith("of 10,042") == (width >= 80)
    starts = [number for number, line in enumerate(lines) if line.startswith("EleutherAI/pythia-2.8b")]
    assert ("±.042" in lines[starts[0]]) == (width >= 140)
    assert len(starts) == (3 if width == 60 else 2)  # of the table, in one part or two, and of its gaps


def test_notes_say_what_a_table_leaves_open() -> None:
    runs = [drawn_run("cut", questions=40), drawn_run("half", tasks=("boolq",)), drawn_run(profile="instruct")]
    said = "\n".join(table_notes(make_table(runs)))
    assert "design effect" in said
    assert "* of fewer questions" in said
    assert "half: no gmean without openbookqa" in said
    assert "1 run of profile instruct with 0 shots" in said
    assert "design effect" not in "\n".join(table_notes(make_table([])))


def test_another_metric_needs_no_model_and_stands_without_the_published_rows(roslin: Run, tmp_path: Path) -> None:
    """ " this" and " that" are as long, " the longer one" is not: acc_norm picks it where acc does not."""
    question = Question((Choice("which?", " this", 4), Choice("which?", " the longer one", 14)), 1)
    run = Store(tmp_path / DEFAULT_STORE).run(Identity("one", "raw", 0, "float32", "test"), "mine")
    run.ask("piqa", [question])
    run.add("piqa", [(question, (ChoiceScore(-4.0, 1), ChoiceScore(-7.0, 3)))])
    for metric, share in (("acc", 0.0), ("acc_norm", 1.0)):
        values = json.loads(roslin("--metric", metric, "--format", "json", cwd=tmp_path).out)
        [row] = values["rows"]
        assert (values["metric"], row["tasks"]["piqa"]["metric"]) == (metric, metric)
        assert row["tasks"]["piqa"]["right"] == share
    assert "by acc_norm" in roslin("--metric", "acc_norm", cwd=tmp_path).out
