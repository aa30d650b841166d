"""The table's rows: their order, their figures, what is left out of them, and the formats for other programs."""

import csv
import io
import json

import orjson
import pytest

from made_runs import drawn_run, run_of, task_scores
from roslin.evaluate.published import COLUMNS, PUBLISHED_TABLE
from roslin.evaluate.scores import TaskScores
from roslin.evaluate.table import make_table
from roslin.evaluate.table_csv import csv_comparisons, csv_gaps, csv_table
from roslin.evaluate.table_json import comparison_object, gap_object, table_object
from roslin.evaluate.table_markdown import markdown_comparisons, markdown_gaps, markdown_table
from roslin.evaluate.tasks import TASKS
from roslin.evaluate.verdicts import compare, gaps
from roslin.statistics import gmean, wilson_interval

PUBLISHED = [row.name for row in PUBLISHED_TABLE]


def test_the_published_rows_stand_as_on_the_card() -> None:
    found = make_table([])
    assert [row.label for row in found.rows] == PUBLISHED
    neox = found.rows[-1]
    assert neox.cells["piqa"].share.interval == wilson_interval(1441, 1838)
    assert neox.gmean
    assert f"{neox.gmean.estimate:.6g}" == "0.602236"
    assert neox.gmean.error == pytest.approx(0.006, abs=0.0005)
    assert not neox.partial


def test_own_runs_stand_among_them_by_gmean() -> None:
    found = make_table([drawn_run("low", accuracy=0.3), drawn_run("high", accuracy=0.7), drawn_run("middle")])
    means = [row.gmean.estimate for row in found.rows if row.gmean]
    assert means == sorted(means)
    assert [row.label for row in (found.rows[0], found.rows[-1])] == ["low", "high"]
    assert [row.label for row in found.own] == ["low", "middle", "high"]
    assert [row.label for row in found.published] == PUBLISHED


def test_a_row_without_all_tasks_has_no_mean_and_stands_last() -> None:
    found = make_table([drawn_run("half", accuracy=0.1, tasks=("piqa", "boolq"))])
    last = found.rows[-1]
    assert (last.label, last.gmean) == ("half", None)
    assert last.missing == COLUMNS[:5]
    assert list(last.cells) == ["piqa", "boolq"]


def test_fewer_questions_are_marked_and_none_are_missing() -> None:
    run = drawn_run(questions=500)
    empty = TaskScores("piqa", "acc_norm", [], task_scores("piqa", []).right, [])
    found = make_table([run_of({**run.tasks, "piqa": empty})], published=False).rows[0]
    assert found.missing == ("piqa",)
    assert found.partial == tuple(task for task in COLUMNS if task not in ("openbookqa", "piqa"))


def test_profiles_and_shots_are_never_mixed() -> None:
    runs = [
        drawn_run("a"),
        drawn_run("b", profile="instruct"),
        drawn_run("c", profile="instruct"),
        drawn_run("d", shots=5),
    ]
    raw = make_table(runs)
    assert [row.label for row in raw.own] == ["a"]
    assert raw.left_out == {("instruct", 0): 2, ("raw", 5): 1}
    instruct = make_table(runs, profile="instruct")
    assert {row.label for row in instruct.rows} == {"b", "c"}
    assert {row.label for row in make_table(runs, shots=5).rows} == {"d"}
    assert make_table(runs, published=False).published == ()


def test_rows_of_one_name_are_told_apart() -> None:
    same = [drawn_run(dtype=dtype) for dtype in ("float32", "bfloat16", "bfloat16")]
    labels = [row.label for row in make_table([*same, drawn_run("other")], published=False).rows]
    assert sorted(labels) == ["mine (bfloat16) 1", "mine (bfloat16) 2", "mine (float32)", "other"]


def test_questions_of_a_passage_and_questions_asked_twice_count_as_one_cluster() -> None:
    boolq = task_scores("boolq", [1, 1, 0, 1], clusters=["p", "p", "q", ""])
    piqa = task_scores("piqa", [1, 1, 0], keys=["a", "a", "b"])
    cells = make_table([run_of({"boolq": boolq, "piqa": piqa})], published=False).rows[0].cells
    assert (cells["boolq"].tally.clusters, cells["boolq"].tally.units) == (3, 4)
    assert (cells["piqa"].tally.clusters, cells["piqa"].tally.units) == (2, 3)


def test_another_metric_does_not_pass_for_the_columns() -> None:
    right = task_scores("piqa", [1, 0])
    with pytest.raises(ValueError, match="acc_norm"):
        make_table([run_of({"piqa": TaskScores("piqa", "acc", right.keys, right.right, right.clusters)})])


def test_markdown_is_the_cards_table() -> None:
    lines = markdown_table(make_table([])).splitlines()
    assert (
        lines[0] == "| model | openbookqa | arc_easy | winogrande | hellaswag | arc_challenge | piqa | boolq | gmean |"
    )
    assert lines[2] == (
        "| EleutherAI/pythia-2.8b | 0.348 | 0.585859 | 0.589582 | 0.591217 | 0.323379 | 0.73395 | 0.638226 | 0.523431 |"
    )
    assert len(lines) == 11
    partial = markdown_table(make_table([drawn_run("a|b*", questions=20)]))
    assert "| a\\|b\\* | 0." in partial
    assert "of fewer questions" in partial


def test_names_in_markdown_are_neither_markup_nor_taken_for_a_published_row() -> None:
    found = make_table([drawn_run("# x\n| _y_ [z](u) <b>", questions=20), drawn_run("EleutherAI/gpt-j-6B", seed=1)])
    lines = markdown_table(found).splitlines()
    assert len([line for line in lines if line.startswith("| EleutherAI/gpt-j-6B | ")]) == 1
    assert len([line for line in lines if line.startswith("| EleutherAI/gpt-j-6B (own) | ")]) == 1
    assert len([line for line in lines if line.startswith(r"| \# x \| \_y\_ \[z\](u) \<b> | 0.")]) == 1


def test_csv_has_every_figure_in_full() -> None:
    found = make_table([drawn_run(tasks=COLUMNS[:6], questions=100)])
    rows = list(csv.DictReader(io.StringIO(csv_table(found))))
    assert len(rows) == 10
    first, own = rows[0], rows[-1]
    assert float(first["hellaswag"]) == 5937 / 10042
    interval = wilson_interval(5937, 10042)
    assert (float(first["hellaswag_low"]), float(first["hellaswag_high"])) == (interval.low, interval.high)
    assert own["boolq_low"] == own["boolq_high"] == ""
    assert float(first["gmean"]) == gmean(PUBLISHED_TABLE[0].accuracies)
    assert float(first["gmean_low"]) < float(first["gmean"]) < float(first["gmean_high"])
    assert (own["source"], own["dtype"], own["boolq"], own["gmean"]) == ("own", "float32", "", "")
    assert own["partial"] == " ".join(COLUMNS[:6])


def test_json_carries_everything() -> None:
    found = make_table([drawn_run(questions=400), drawn_run(profile="instruct")])
    parsed = json.loads(orjson.dumps(table_object(found)))
    assert (parsed["profile"], parsed["shots"], parsed["confidence"]) == ("raw", 0, 0.95)
    assert parsed["left_out"] == [{"profile": "instruct", "shots": 0, "runs": 1}]
    by_name = {row["label"]: row for row in parsed["rows"]}
    cell = by_name["EleutherAI/gpt-j-6B"]["tasks"]["boolq"]
    wanted = wilson_interval(2145, 3270)
    assert cell["interval"] == [wanted.low, wanted.high]
    assert (cell["right"], cell["questions"], cell["of"], cell["metric"]) == (2145, 3270, 3270, "acc")
    mine = by_name["mine"]
    assert (mine["source"], mine["dtype"], mine["tasks"]["boolq"]["clusters"]) == ("own", "float32", 360)
    assert mine["tasks"]["boolq"]["design_effect"] != 1
    assert mine["tasks"]["piqa"]["partial"]
    for method in ("delta", "bootstrap"):
        low, high = mine["gmean"][method]
        assert low < mine["gmean"]["estimate"] < high


def test_what_cannot_be_told_is_null() -> None:
    all_right = {task: task_scores(task, [1, 1, 1], clusters=["a", "a", "b"]) for task in COLUMNS}
    [row] = json.loads(orjson.dumps(table_object(make_table([run_of(all_right)], published=False))))["rows"]
    assert row["gmean"] == {"estimate": 1, "standard_error": None, "delta": None, "bootstrap": None}
    assert row["tasks"]["piqa"]["design_effect"] is None


def test_comparisons_in_every_format() -> None:
    found = make_table([drawn_run("a"), drawn_run("b", seed=1, accuracy=0.65)])
    first, second = found.own
    paired, unpaired = compare(second, first), compare(first, found.published[0])
    parsed = json.loads(orjson.dumps(comparison_object(paired)))
    assert parsed["paired"]
    assert parsed["tasks"]["hellaswag"]["verdict"].startswith("differs by +")
    assert parsed["tasks"]["hellaswag"]["only_own"] > parsed["tasks"]["hellaswag"]["only_other"]
    assert parsed["gmean"]["differs"]
    rows = list(csv.DictReader(io.StringIO(csv_comparisons([paired, unpaired]))))
    assert [row["task"] for row in rows] == [*COLUMNS, "gmean"] * 2
    assert rows[0]["questions"] == str(TASKS["openbookqa"].size)
    assert [row["paired"] for row in rows] == ["True"] * 8 + ["False"] * 8
    text = markdown_comparisons([paired, unpaired])
    assert text.count("| gmean |") == 2
    assert "Comparison of a against EleutherAI/pythia-2.8b (published, by counts)" in text
    assert "Own runs: p by McNemar" in text
    assert "Newcombe" in text


def test_gaps_in_every_format() -> None:
    found = gaps(make_table([]).rows)
    assert len(csv_gaps(found).splitlines()) == 9
    assert [row["verdict"] for row in csv.DictReader(io.StringIO(csv_gaps(found)))].count("unsure") == 2
    lines = markdown_gaps(found).splitlines()
    assert len([line for line in lines if line.startswith("|")]) == 10
    assert "| EleutherAI/pythia-2.8b | EleutherAI/pythia-6.9b | 0.0201 |" in lines[2]
    assert lines[-3].startswith("- Of 8 gaps in gmean, 2 are more than noise")
    parsed = json.loads(orjson.dumps(gap_object(found[0])))
    assert (parsed["gmean_holm_p"], parsed["gmean_verdict"]) == (found[0].corrected_p, "unsure")
