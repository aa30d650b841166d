"""The table, its comparisons and its gaps as CSV, with every figure in full. What has no value is empty."""

import csv
import io
from collections.abc import Iterable, Sequence

from roslin.evaluate.published import COLUMNS
from roslin.evaluate.table import Row, Table
from roslin.evaluate.verdicts import Comparison, Gap, Verdict

Record = Sequence[str | float | bool | None]

COMPARED = (
    *("model", "against", "paired", "task", "accuracy", "against_accuracy", "items", "questions"),
    *("difference", "low", "high", "p", "holm_p", "differs"),
)
"""Fields of a comparison's record."""
GAP = ("model", "against", "difference", "low", "high", "p", "holm_p", "verdict", "tasks_that_differ")
"""Fields of a gap's record; difference, interval and p are those of gmean."""


def csv_table(table: Table) -> str:
    """A line a row: shares, gmean by the delta method, intervals of all, and tasks of which only a part was asked."""
    limits = [f"{task}_{end}" for task in COLUMNS for end in ("low", "high")]
    heading = ("model", "source", "dtype", *COLUMNS, "gmean", *limits, "gmean_low", "gmean_high", "partial")
    return _csv(heading, map(_row_record, table.rows))


def csv_comparisons(comparisons: Sequence[Comparison]) -> str:
    """A line a task of each comparison, and one for gmean."""
    return _csv(COMPARED, (record for found in comparisons for record in _compared_records(found)))


def csv_gaps(found: Sequence[Gap]) -> str:
    """A line a gap."""
    return _csv(GAP, map(_gap_record, found))


def _compared_records(found: Comparison) -> list[Record]:
    """A record a task of what was compared, and one for gmean."""
    held = (found.name, found.against, found.paired)
    records = [(*held, task, *_figures(verdict)) for task, verdict in found.verdicts.items()]
    if found.gmean is None:
        return [*records]
    low, high = (found.gmean.delta.low, found.gmean.delta.high) if found.gmean.delta else (None, None)
    mean = (None, None, None, None, found.gmean.estimate, low, high, found.gmean.p, None, found.gmean_differs)
    return [*records, (*held, "gmean", *mean)]


def _gap_record(gap: Gap) -> Record:
    """What parts two rows, by gmean, and the tasks in which they differ."""
    found, mean = gap.comparison, gap.comparison.gmean
    apart = " ".join(task for task, verdict in found.verdicts.items() if verdict.differs)
    if mean is None:
        return found.name, found.against, None, None, None, None, None, None, apart
    low, high = (mean.delta.low, mean.delta.high) if mean.delta else (None, None)
    return found.name, found.against, mean.estimate, low, high, mean.p, gap.corrected_p, gap.verdict, apart


def _row_record(row: Row) -> Record:
    intervals = [row.cells[task].share.interval if task in row.cells else None for task in COLUMNS]
    accuracies = [each.estimate if each else None for each in intervals]
    limits = [limit for each in intervals for limit in ((each.low, each.high) if each else (None, None))]
    mean = row.gmean
    low, high = (mean.delta.low, mean.delta.high) if mean and mean.delta else (None, None)
    dtype = row.scores.dtype if row.scores else None
    figures = (*accuracies, mean.estimate if mean else None, *limits, low, high)
    return row.label, row.source, dtype, *figures, " ".join(row.partial)


def _figures(verdict: Verdict) -> Record:
    interval = verdict.difference
    shares = (verdict.accuracy, verdict.against, verdict.items, verdict.questions)
    return *shares, interval.estimate, interval.low, interval.high, verdict.p, verdict.corrected_p, verdict.differs


def _csv(heading: Sequence[str], records: Iterable[Record]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(records)
    return out.getvalue()
