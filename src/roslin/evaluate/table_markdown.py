"""The table and its comparisons as Markdown."""

import re
from collections.abc import Sequence, Set

from roslin.evaluate.published import COLUMNS
from roslin.evaluate.table import Row, Table
from roslin.evaluate.verdict_text import (
    COMPARED,
    GAP,
    comparison_lines,
    comparison_notes,
    comparison_title,
    gap_lines,
    gap_notes,
)
from roslin.evaluate.verdicts import Comparison, Gap

MARK = "*"
"""Stands behind a figure of fewer questions than the task has."""
_MARKS = re.compile(r"[\\`*\[\]<|#&~]|(?<!\w)_|_(?!\w)")


def markdown_table(table: Table) -> str:
    """The table as the model card has it, with six digits; an own run of a published row's name is told from it."""
    published = {row.label for row in table.published}
    lines = [_line(("model", *COLUMNS, "gmean")), _line(("---", *("---:" for _ in COLUMNS), "---:"))]
    lines += [_line((_name(row, published), *_figures(row))) for row in table.rows]
    if any(row.partial for row in table.rows):
        lines += ["", f"{_plain(MARK)} of fewer questions than the task has"]
    return _text(lines)


def markdown_comparisons(comparisons: Sequence[Comparison]) -> str:
    """A table for each comparison, and how they were made."""
    return "\n".join([*map(_comparison, comparisons), _text(_listed(comparison_notes(comparisons)))])


def markdown_gaps(found: Sequence[Gap]) -> str:
    """The gaps between rows, by gmean, and what they come to."""
    return _text([*_lines(GAP, gap_lines(found)), "", *_listed(gap_notes(found))])


def _name(row: Row, published: Set[str]) -> str:
    return _plain(f"{row.label} (own)" if row.source == "own" and row.label in published else row.label)


def _figures(row: Row) -> list[str]:
    cells = [row.cells.get(task) for task in COLUMNS]
    shares = [_marked(cell.share.interval.estimate, cell.partial) if cell else "" for cell in cells]
    return [*shares, _marked(row.gmean.estimate, bool(row.partial)) if row.gmean else ""]


def _marked(figure: float, partial: bool) -> str:
    return f"{figure:.6g}{_plain(MARK) if partial else ''}"


def _comparison(found: Comparison) -> str:
    notes = ["", *_listed(found.notes)] if found.notes else []
    opening = f"Comparison of {_plain(comparison_title(found))}:"
    return _text([opening, "", *_lines(COMPARED, comparison_lines(found)), *notes])


def _lines(heading: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    return [_line(heading), _line(["---"] * len(heading)), *(_line([_plain(cell) for cell in line]) for line in lines)]


def _listed(notes: Sequence[str]) -> list[str]:
    return [f"- {_plain(note)}" for note in notes]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text that stays as it is, without ending a cell or beginning markup."""
    return _MARKS.sub(r"\\\g<0>", " ".join(text.split()))
