"""The table, its comparisons and its gaps as people read them in a terminal."""

from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from roslin.evaluate.published import COLUMNS
from roslin.evaluate.table import Cell, Row, Table
from roslin.evaluate.table_markdown import MARK
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
from roslin.statistics import Interval

WIDE = 128
"""Columns from which on a figure's interval stands beside it; where there are fewer, it stands below."""
ROOMY = 90
"""Columns from which on two blanks stand between columns; where there are fewer, one."""
WHOLE = 76
"""Columns from which on all tasks stand side by side; where there are fewer, in two parts."""
HEADINGS = {
    "openbookqa": "open-\nbookqa",
    "arc_easy": "arc\neasy",
    "winogrande": "wino-\ngrande",
    "hellaswag": "hella-\nswag",
    "arc_challenge": "arc\nchall.",
}


def show_table(table: Table, console: Console) -> None:
    """Print the table with half the width of each interval, and below it what is to be known of the figures."""
    columns = (*COLUMNS, "gmean")
    parts = [columns] if console.width >= WHOLE else [columns[:4], columns[4:]]
    for part in parts:
        _show_columns(table, part, console)
    _print_notes(console, table_notes(table))


def _show_columns(table: Table, columns: Sequence[str], console: Console) -> None:
    wide = console.width >= WIDE
    grid = _grid(console)
    grid.add_column("model", overflow="fold")
    for column in columns:
        grid.add_column(HEADINGS.get(column, column), justify="right", no_wrap=True)
    for row in table.rows:
        style = "bold" if row.source == "own" else ""
        figures = (_figure_of(row, column, wide) for column in columns)
        grid.add_row(*(Text(text, style) for text in (_name(row, wide), *figures)))
    console.print(grid)


def show_comparisons(comparisons: Sequence[Comparison], console: Console) -> None:
    """Print a verdict a task of each comparison, and one of the mean; then how they were made."""
    for found in comparisons:
        _show_comparison(found, console)
    _print_notes(console, ["", *comparison_notes(comparisons)])


def _show_comparison(found: Comparison, console: Console) -> None:
    """Where there is little room, the other's shares are left out: own shares and differences tell them."""
    shown = [heading for heading in COMPARED if heading != "other" or console.width >= ROOMY]
    console.print(Text(f"\n{comparison_title(found)}"))
    grid = _grid(console)
    for heading in shown:
        grid.add_column(heading, justify=_justified(heading), no_wrap=heading != "verdict")
    for line in comparison_lines(found):
        grid.add_row(*(text for heading, text in zip(COMPARED, line, strict=True) if heading in shown))
    console.print(grid)
    _print_notes(console, found.notes)


def show_gaps(gaps: Sequence[Gap], console: Console) -> None:
    """Print what parts each row from the one before it, and whether that is more than noise.

    Where there is little room, the intervals are left out: p tells whether they hold 0.
    """
    shown = [heading for heading in GAP[2:] if heading != "95 %" or console.width >= WHOLE]
    grid = _grid(console)
    grid.add_column("from, to", no_wrap=True)
    for heading in shown:
        grid.add_column(heading.replace("tasks that ", "tasks that\n"), justify=_justified(heading), no_wrap=True)
    for line in gap_lines(gaps):
        said = dict(zip(GAP, line, strict=True))
        said[GAP[-1]] = said[GAP[-1]].replace(", ", "\n")
        grid.add_row(Text("\n".join(line[:2])), *(said[heading] for heading in shown))
    console.print(grid)
    _print_notes(console, gap_notes(gaps))


def table_notes(table: Table) -> list[str]:
    """What is to be known of a table's figures."""
    notes = [
        f"Share of right answers, {_asked(table)}; ± half of the 95 % interval: Wilson's, gmean by the delta method."
    ]
    effects = sorted(cell.share.design_effect for cell in _clustered(table) if cell.share.design_effect > 0)
    if effects:
        span = f"{effects[0]:.2f}" if len(effects) == 1 else f"{effects[0]:.2f} to {effects[-1]:.2f}"
        notes.append(f"boolq of own runs is clustered by passage (design effect {span}).")
    if table.published:
        notes.append(
            "Published rows: the model card of databricks/dolly-v2-7b, as counts, which hide what questions of boolq "
            "share a passage."
        )
    if any(row.partial for row in table.rows):
        notes.append(f"{MARK} of fewer questions than the task has.")
    notes += [f"{row.label}: no gmean without {', '.join(row.missing)}." for row in table.rows if row.missing]
    notes += [
        f"Left out: {_runs(runs)} of profile {profile} with {shots} shots (--profile {profile} --shots {shots})."
        for (profile, shots), runs in table.left_out.items()
    ]
    return notes


def _grid(console: Console) -> Grid:
    gap = 1 if console.width >= ROOMY else 0
    return Grid(box=box.SIMPLE_HEAD, padding=(0, gap, 0, 0), pad_edge=False, show_edge=False)


def _justified(heading: str) -> Literal["left", "right"]:
    return "left" if heading.startswith(("task", "verdict")) else "right"


def _print_notes(console: Console, notes: Sequence[str]) -> None:
    for note in notes:
        console.print(Text(note))


def _clustered(table: Table) -> list[Cell]:
    cells = [row.cells["boolq"] for row in table.own if "boolq" in row.cells]
    return [cell for cell in cells if cell.tally.clusters < cell.tally.units]


def _asked(table: Table) -> str:
    by = f", by {table.metric}" if table.metric else ""
    return f"profile {table.profile}, {'zero-shot' if table.shots == 0 else f'{table.shots} shots'}{by}"


def _runs(number: int) -> str:
    return "1 run" if number == 1 else f"{number:,} runs"


def _name(row: Row, wide: bool) -> str:
    if row.scores is None:
        return row.label
    return _beside(row.label, f"(own, {row.scores.dtype})", wide)


def _figure_of(row: Row, column: str, wide: bool) -> str:
    if column == "gmean":
        return _figure(row.gmean.estimate, row.gmean.delta, bool(row.partial), wide) if row.gmean else "–"
    return _cell(row.cells[column], wide) if column in row.cells else "–"


def _beside(first: str, second: str, wide: bool) -> str:
    return f"{first} {second}" if wide else f"{first}\n{second}"


def _cell(cell: Cell, wide: bool) -> str:
    return _figure(cell.share.interval.estimate, cell.share.interval, cell.partial, wide)


def _figure(estimate: float, interval: Interval | None, partial: bool, wide: bool) -> str:
    half = f"±{interval.half_width:.3f}".replace("±0.", "±.") if interval else ""
    return _beside(f"{estimate:.3f}{MARK if partial else ''}", half, wide)
