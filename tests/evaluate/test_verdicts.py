"""Verdicts on two rows: by counts, question by question, and on the gaps of the published table."""

import math

import numpy as np
import pytest

from made_runs import drawn_run, run_of, task_scores
from roslin.evaluate.published import COLUMNS, PUBLISHED_TABLE
from roslin.evaluate.scores import ModelScores
from roslin.evaluate.table import Row, make_table
from roslin.evaluate.tasks import TASKS
from roslin.evaluate.verdicts import compare, gaps
from roslin.statistics import gmean


def row_of(run: ModelScores) -> Row:
    return make_table([run], published=False).rows[0]


def published(name: str) -> Row:
    return next(row for row in make_table([]).rows if row.label == name)


def test_own_runs_are_compared_question_by_question() -> None:
    mine = run_of({"piqa": task_scores("piqa", [1] * 10 + [0] * 3 + [1] * 7)})
    other = run_of({"piqa": task_scores("piqa", [0] * 10 + [1] * 3 + [1] * 7)}, "other")
    found = compare(row_of(mine), row_of(other))
    assert found.paired
    verdict = found.verdicts["piqa"]
    assert (verdict.accuracy, verdict.against, verdict.items, verdict.questions) == (0.85, 0.5, 7, 20)
    assert (verdict.only_own, verdict.only_other) == (10, 3)
    assert verdict.p == verdict.corrected_p == pytest.approx(470 / 8192)
    assert str(verdict) == "within noise"
    assert found.gmean is None
    assert "mine was not asked openbookqa" in found.notes[0]


def test_a_difference_is_told_in_items() -> None:
    mine = run_of({"piqa": task_scores("piqa", [0] * 30 + [1] * 70)})
    other = run_of({"piqa": task_scores("piqa", [1] * 100)}, "other")
    assert str(compare(row_of(mine), row_of(other)).verdicts["piqa"]) == "differs by -30 of 100 items"


def test_only_common_questions_are_paired() -> None:
    mine = run_of({"piqa": task_scores("piqa", [1, 0, 1, 1], keys=["a", "b", "b", "c"])})
    other = run_of({"piqa": task_scores("piqa", [1, 0, 0], keys=["d", "c", "b"])}, "other")
    found = compare(row_of(mine), row_of(other))
    verdict = found.verdicts["piqa"]
    assert (verdict.questions, verdict.accuracy, verdict.against) == (2, 0.5, 0.0)
    assert "piqa 2 (of 4 and 3)" in found.notes[-1]


def test_runs_of_other_questions_do_not_compare() -> None:
    mine = run_of({"piqa": task_scores("piqa", [1], keys=["a"])})
    other = run_of({"piqa": task_scores("piqa", [1], keys=["b"])})
    found = compare(row_of(mine), row_of(other))
    assert found.verdicts == {}
    assert "piqa 0 (of 1 and 1)" in found.notes[-1]


def test_a_run_does_not_differ_from_itself() -> None:
    row = row_of(drawn_run())
    found = compare(row, row)
    assert {str(verdict) for verdict in found.verdicts.values()} == {"within noise"}
    assert {verdict.p for verdict in found.verdicts.values()} == {1}
    assert found.gmean
    assert (found.gmean.estimate, found.gmean.p, found.gmean_differs) == (0, 1, False)


def test_pairing_sees_what_counts_do_not() -> None:
    """Two models that agree on most questions: a small difference is sure, and its interval half as wide."""
    first, second = (row_of(drawn_run(seed=seed, accuracy=a)) for seed, a in ((1, 0.6), (2, 0.64)))
    by_question = compare(second, first)
    by_counts = compare(second, Row("first", "published", first.cells, None))
    assert not by_counts.paired
    for task in COLUMNS:
        paired, unpaired = by_question.verdicts[task], by_counts.verdicts[task]
        assert paired.items == unpaired.items
        assert paired.difference.half_width < 0.75 * unpaired.difference.half_width
    assert by_question.gmean
    assert by_counts.gmean
    assert by_question.gmean.estimate == pytest.approx(by_counts.gmean.estimate)
    assert by_question.gmean.p
    assert by_counts.gmean.p
    assert by_question.gmean.p < by_counts.gmean.p


def test_the_same_counts_as_published_are_within_noise() -> None:
    row = PUBLISHED_TABLE[6]
    tasks = {
        task: task_scores(task, [1] * right + [0] * (TASKS[task].size - right))
        for task, right in zip(COLUMNS, row.right, strict=True)
    }
    found = compare(row_of(run_of(tasks)), published(row.name))
    assert {(verdict.items, verdict.p, verdict.differs) for verdict in found.verdicts.values()} == {(0, 1.0, False)}
    assert found.gmean_differs is False
    assert found.notes == ()


def test_fewer_questions_are_compared_by_their_share() -> None:
    mine = run_of({"piqa": task_scores("piqa", [1] * 50 + [0] * 50)})
    found = compare(row_of(mine), published("EleutherAI/gpt-neox-20b"))
    verdict = found.verdicts["piqa"]
    assert (verdict.items, verdict.questions) == (round(100 * (0.5 - 1441 / 1838)), 100)
    assert verdict.differs
    assert "100 of 1,838 of piqa" in found.notes[-1]


def test_a_known_design_effect_goes_for_both() -> None:
    """boolq asked in passages of ten that stand or fall together: ten times fewer questions are worth as much."""
    right = [1] * 2000 + [0] * 1270
    alike = task_scores("boolq", right, clusters=[str(place // 10) for place in range(3270)])
    other = published("EleutherAI/gpt-neox-20b")
    clustered = compare(row_of(run_of({"boolq": alike})), other).verdicts["boolq"]
    plain = compare(row_of(run_of({"boolq": task_scores("boolq", right)})), other).verdicts["boolq"]
    assert clustered.difference.half_width == pytest.approx(plain.difference.half_width * math.sqrt(10), rel=0.02)
    assert clustered.p > plain.p


def test_tasks_are_corrected_for_their_number() -> None:
    found = compare(row_of(drawn_run(accuracy=0.62)), published("databricks/dolly-v2-7b"))
    by_p = sorted(found.verdicts.values(), key=lambda verdict: verdict.p)
    assert by_p[0].corrected_p == pytest.approx(min(1, 7 * by_p[0].p))
    assert [verdict.corrected_p for verdict in by_p] == sorted(verdict.corrected_p for verdict in by_p)


def test_the_gaps_of_the_published_table() -> None:
    """Against a plain z test: two of eight gaps in gmean pass alone, none when corrected for being eight."""
    found = gaps(make_table([]).rows)
    sizes = np.array([TASKS[task].size for task in COLUMNS])
    means, errors = [], []
    for row in PUBLISHED_TABLE:
        shares = np.array(row.accuracies)
        means.append(gmean(row.accuracies))
        errors.append(means[-1] * math.sqrt(((1 - shares) / shares / sizes).sum()) / 7)
    for place, gap in enumerate(found):
        z = (means[place + 1] - means[place]) / math.hypot(errors[place], errors[place + 1])
        assert gap.comparison.gmean
        assert gap.comparison.gmean.p == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.001)
    passing = [gap.comparison.name for gap in found if gap.comparison.gmean_differs]
    assert passing == ["EleutherAI/pythia-6.9b", "EleutherAI/gpt-neox-20b"]
    assert all(gap.corrected_p and gap.corrected_p > 0.15 for gap in found)
    apart = {gap.comparison.name: [t for t, v in gap.comparison.verdicts.items() if v.differs] for gap in found}
    assert apart["EleutherAI/gpt-j-6B"] == []
    assert apart["databricks/dolly-v2-7b"] == ["hellaswag", "boolq"]


def test_a_gap_to_a_row_without_a_mean_is_not_told() -> None:
    rows = make_table([drawn_run(tasks=("piqa",))]).rows
    last = gaps(rows)[-1]
    assert (last.comparison.gmean, last.corrected_p) == (None, None)
