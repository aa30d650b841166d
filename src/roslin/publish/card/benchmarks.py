"""The card's section on benchmarks: the model's line beside its base's and the published ones, each with intervals."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from roslin.evaluate.published import COLUMNS
from roslin.evaluate.table import make_table
from roslin.evaluate.table_markdown import markdown_comparisons, markdown_table
from roslin.publish.markdown import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from roslin.publish.evidence.benchmarks import BenchmarkEvidence, RowEvidence

SECTION = "benchmarks"
"""The name of the section in a card."""
HEADING = "## Benchmark Metrics"


def benchmarks_markdown(found: Sequence[BenchmarkEvidence], missing: Sequence[str] = ()) -> str:
    """The section as Markdown, a part for each way of asking; `missing` says what else was not measured."""
    return "\n\n".join([HEADING, *map(_part, found), *missing]) + "\n"


def _part(found: BenchmarkEvidence) -> str:
    asked = "zero-shot" if found.shots == 0 else f"with {found.shots} examples"
    way = "as they stand" if found.profile == "raw" else "in the model's own prompt"
    opening = f"""The tasks of the LM Evaluation Harness that Dolly's card reports, {asked}, questions put {way}, in
{found.own.dtype}. openbookqa, arc_easy, hellaswag, arc_challenge and piqa by acc_norm, winogrande and boolq by acc;
gmean is their geometric mean.{" The other rows are those of Dolly's card." if found.order == (False, 0) else ""}"""
    parts = [opening, _table(found), _intervals(found.own)]
    if found.base and found.paired:
        name, against = found.own.name, _base_name(found)
        parts.append(markdown_comparisons([found.paired.comparison(name, against)]).strip())
    parts += [_contamination(found)] if found.contamination else []
    parts += ["\n".join(f"- {plain(remark)}" for remark in found.remarks)] if found.remarks else []
    return "\n\n".join(parts)


def _base_name(found: BenchmarkEvidence) -> str:
    assert found.base
    return f"{found.base.name} (base)" if found.base.name == found.own.name else found.base.name


def _table(found: BenchmarkEvidence) -> str:
    rows = [found.own.row, *([replace(found.base.row, label=_base_name(found))] if found.base else [])]
    published = make_table([], profile=found.profile, shots=found.shots)
    table = replace(published, rows=tuple(sorted((*published.rows, *rows), key=_rank)))
    return markdown_table(table).strip()


def _rank(row: object) -> float:
    gmean = getattr(row, "gmean", None)
    return gmean.estimate if gmean else float("inf")


def _intervals(row: RowEvidence) -> str:
    """The row's counts and intervals, and how they were made: a share alone looks surer than it is."""
    lines = ["| task | right answers | accuracy | 95 % interval |", "|---|---:|---:|---|"]
    for task in (task for task in COLUMNS if task in row.tasks):
        cell = row.tasks[task]
        share = cell.share
        lines.append(
            f"| {task} | {cell.right:,} of {cell.asked:,} | {share.estimate:.6g} | {share.low:.3f} … {share.high:.3f} |"
        )
    if row.gmean:
        lines.append(f"| gmean | | {row.gmean.estimate:.6g} | {row.gmean.low:.3f} … {row.gmean.high:.3f} |")
    lines += ["", "Intervals are Wilson's, that of gmean is by the delta method; boolq's passages are allowed for."]
    return "\n".join(lines)


def _contamination(found: BenchmarkEvidence) -> str:
    """What the records that the model was tuned on hold of the questions."""
    records = max(each.records for each in found.contamination.values())
    lines = ["| task | questions in the records | accuracy on the others |", "|---|---:|---:|"]
    for task, each in found.contamination.items():
        clean = "" if each.clean_accuracy is None else f"{each.clean_accuracy:.6g}"
        lines.append(f"| {task} | {each.touched:,} of {each.questions:,} | {clean} |")
    return (
        f"Contamination: questions that share 13 words in a row (or all of theirs, being shorter) with the {records:,} "
        "records that the model was tuned on.\n\n" + "\n".join(lines)
    )
