"""What people read of comparisons: figures that do not contradict each other, and what they leave open."""

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from made_runs import drawn_run, run_of, task_scores
from roslin.evaluate.published import COLUMNS
from roslin.evaluate.table import Row, make_table
from roslin.evaluate.verdict_text import (
    BOOLQ_AT_WORST,
    COMPARED,
    comparison_lines,
    comparison_notes,
    gap_lines,
    gap_notes,
)
from roslin.evaluate.verdicts import LEVEL, Comparison, compare, gaps
from roslin.statistics import holm, share_difference_p, share_of


def compared(seeds: tuple[int, int], accuracies: tuple[float, float]) -> Comparison:
    runs = [drawn_run(str(seed), seed=seed, accuracy=each) for seed, each in zip(seeds, accuracies, strict=True)]
    first, second = sorted(make_table(runs, published=False).rows, key=lambda row: row.label)
    return compare(second, first)


def cells(found: Comparison) -> dict[str, dict[str, str]]:
    return {line[0]: dict(zip(COMPARED, line, strict=True)) for line in comparison_lines(found)}


def against_counts(decided: int) -> Comparison:
    """A piqa run of 1838 questions against another that has `decided` fewer right, and six tasks that are alike."""
    alike = {task: task_scores(task, [1, 0] * 50) for task in COLUMNS if task != "piqa"}
    less = task_scores("piqa", [0] * decided + [1] * 900 + [0] * (938 - decided))
    more = task_scores("piqa", [1] * (900 + decided) + [0] * (938 - decided))
    rows: list[Row] = []
    for name, piqa in (("less", less), ("more", more)):
        rows += make_table([run_of({**alike, "piqa": piqa}, name)], published=False).rows
    return compare(rows[1], rows[0])


def test_an_interval_beyond_0_stands_beside_the_p_that_it_goes_with() -> None:
    """Six questions of one model alone: p is .016 and the interval leaves out 0, but among seven tasks it is noise."""
    found = against_counts(6)
    line = cells(found)["piqa"]
    assert found.verdicts["piqa"].difference.low > 0
    assert (line["p"], line["Holm"], line["verdict"]) == (".016", ".109", "within noise")
    assert line["difference, 95 %"].startswith("+.003 [+.001, +.00")
    assert any("leaves out 0 may be within noise" in note for note in comparison_notes([found]))


def test_p_and_interval_of_the_mean_are_of_one_method() -> None:
    for accuracies in ((0.6, 0.606), (0.6, 0.611), (0.6, 0.615), (0.6, 0.63)):
        found = compared((1, 2), accuracies)
        assert found.gmean
        assert found.gmean.delta
        assert found.gmean.p is not None
        assert (found.gmean.delta.low <= 0 <= found.gmean.delta.high) == (found.gmean.p >= LEVEL)
        assert f"[{found.gmean.delta.low:+.3f}".replace("0.", ".", 1) in cells(found)["gmean"]["difference, 95 %"]


def test_a_p_beside_the_level_has_the_digits_that_tell_on_which_side() -> None:
    found = against_counts(6)
    for p, shown in ((0.0496, ".0496"), (0.0504, ".0504"), (0.0494, ".049"), (0.0004, "<.001"), (0.99999, "1")):
        near = replace(found, verdicts={"piqa": replace(found.verdicts["piqa"], p=p)})
        assert cells(near)["piqa"]["p"] == shown


def test_many_comparisons_are_told_to_be_many() -> None:
    found = against_counts(6)
    assert not any("one comparison in twenty" in note for note in comparison_notes([found]))
    assert any("2 comparisons" in note for note in comparison_notes([found, found]))


def test_what_is_not_known_of_a_gap_is_empty() -> None:
    [*_, last] = gap_lines(gaps(make_table([drawn_run(tasks=("piqa",), questions=30)]).rows))
    assert last[:7] == ("EleutherAI/gpt-neox-20b", "mine", "", "", "", "", "not told")


def test_gaps_are_noise_unsure_or_differences() -> None:
    low, high = drawn_run("low", accuracy=0.2), drawn_run("high", accuracy=0.9)
    found = gaps(make_table([low, high]).rows)
    assert [gap.verdict for gap in found].count("differs") == 2
    assert [gap.verdict for gap in found][1:3] == ["unsure", "noise"]
    assert "Of 10 gaps in gmean, 4 are more than noise" in gap_notes(found)[0]


def test_boolqs_passages_change_no_verdict_on_the_published_gaps() -> None:
    rows = make_table([]).rows
    for gap, (before, row) in zip(gaps(rows), pairwise(rows), strict=True):
        shares = [share_of(each.cells["boolq"].tally, design_effect=BOOLQ_AT_WORST) for each in (before, row)]
        alone = {task: verdict.p for task, verdict in gap.comparison.verdicts.items()} | {
            "boolq": share_difference_p(*shares)
        }
        differs = [p < LEVEL for p in holm(list(alone.values()))]
        assert differs == [verdict.differs for verdict in gap.comparison.verdicts.values()]


def test_boolqs_passages_at_their_worst(shared_data: Path) -> None:
    lines = (shared_data / "benchmarks" / "boolq_validation.jsonl").read_text(encoding="utf-8").splitlines()
    passages = Counter(json.loads(line)["passage"] for line in lines)
    assert round(sum(number**2 for number in passages.values()) / len(lines), 2) == BOOLQ_AT_WORST
