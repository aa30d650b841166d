"""The table and its comparisons as Markdown."""

from collections.abc import Iterable, Sequence

from roslin.evaluate.published import COLUMNS
from roslin.evaluate.table import Row, Table
from roslin.evaluate.table_csv import COMPARED, GAP, Record, compared_records, gap_record
from roslin.evaluate.verdicts import PAIRED_TEST, UNPAIRED_TEST, Comparison, Gap

MARK = "*"
"""Stands behind a figure of fewer questions than the task has."""


def markdown_table(table: Table) -> str:
    """The table as the model card has it, with six digits."""
    lines = [_line(("model", *COLUMNS, "gmean")), _line(("---", *("---:" for _ in COLUMNS), "---:"))]
    lines += [_line((_plain(row.label), *_figures(row))) for row in table.rows]
    if any(row.partial for row in table.rows):
        lines += ["", f"{_plain(MARK)} of fewer questions than the task has"]
    return _text(lines)


def markdown_comparisons(comparisons: Sequence[Comparison]) -> str:
    """A table for each comparison."""
    return "\n".join(map(_comparison, comparisons))


def markdown_gaps(found: Sequence[Gap]) -> str:
    """The gaps between rows, by gmean."""
    return _text(_lines(GAP, map(gap_record, found)))


def _figures(row: Row) -> list[str]:
    cells = [row.cells.get(task) for task in COLUMNS]
    shares = [_marked(cell.share.interval.estimate, cell.partial) if cell else "" for cell in cells]
    return [*shares, _marked(row.gmean.estimate, bool(row.partial)) if row.gmean else ""]


def _marked(figure: float, partial: bool) -> str:
    return f"{figure:.6g}{_plain(MARK) if partial else ''}"


def _comparison(found: Comparison) -> str:
    test = PAIRED_TEST if found.paired else f"{UNPAIRED_TEST} of counts"
    said = f"{_plain(found.name)} against {_plain(found.against)} ({test}; p corrected by Holm for the tasks):"
    notes = [f"- {_plain(note)}" for note in found.notes]
    lines = _lines(COMPARED[2:], (record[2:] for record in compared_records(found)))
    return _text([said, "", *lines, *(["", *notes] if notes else [])])


def _lines(heading: Sequence[str], records: Iterable[Record]) -> list[str]:
    return [_line(heading), _line(["---"] * len(heading)), *(_line([_cell(f) for f in record]) for record in records)]


def _cell(figure: str | float | bool | None) -> str:
    if isinstance(figure, bool):
        return "yes" if figure else "no"
    if isinstance(figure, float):
        return f"{figure:.4g}"
    return "" if figure is None else _plain(str(figure))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text that stays as it is, without ending a cell or beginning markup."""
    return "".join(f"\\{letter}" if letter in "\\|*`<[" else letter for letter in " ".join(text.split()))
