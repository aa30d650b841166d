"""The card's section on benchmarks: the model's line beside the published ones, each figure with its interval."""

from collections.abc import Sequence

from roslin.evaluate.scores import ModelScores
from roslin.evaluate.table import Row, make_table
from roslin.evaluate.table_markdown import markdown_table
from roslin.publish.markdown import plain

SECTION = "benchmarks"
"""The name of the section in a card."""


def benchmarks_markdown(scores: ModelScores, remarks: Sequence[str] = ()) -> str:
    """The section as Markdown; `remarks` are sentences that must be said of the figures."""
    table = make_table([scores], profile=scores.profile, shots=scores.shots)
    [row] = table.own
    asked = "zero-shot" if scores.shots == 0 else f"with {scores.shots} examples"
    way = "as they stand" if scores.profile == "raw" else "in the model's own prompt"
    opening = f"""## Benchmarks

The tasks of the LM Evaluation Harness that Dolly's card reports, {asked}, questions put {way}, in {scores.dtype}.
openbookqa, arc_easy, hellaswag, arc_challenge and piqa by acc_norm, winogrande and boolq by acc; gmean is their
geometric mean.{" The other rows are those of Dolly's card." if table.published else ""}"""
    said = ["\n".join(f"- {plain(remark)}" for remark in remarks)] if remarks else []
    return "\n\n".join([opening, markdown_table(table).strip(), _intervals(row), *said]) + "\n"


def _intervals(row: Row) -> str:
    """The row's counts and intervals, and how they were made: a share alone looks surer than it is."""
    lines = ["| task | right answers | accuracy | 95 % interval |", "|---|---:|---:|---|"]
    for task, cell in row.cells.items():
        share = cell.share.interval
        counts = f"{int(cell.tally.totals_M[0]):,} of {cell.tally.units:,}"
        lines.append(f"| {task} | {counts} | {share.estimate:.6g} | {share.low:.3f} … {share.high:.3f} |")
    if row.gmean and row.gmean.delta:
        mean = row.gmean.delta
        lines.append(f"| gmean | | {mean.estimate:.6g} | {mean.low:.3f} … {mean.high:.3f} |")
    lines += ["", "Intervals are Wilson's, that of gmean is by the delta method; boolq's passages are allowed for."]
    return "\n".join(lines)
