"""The table as a forest plot: a panel a task and one for gmean, a line a model, each figure with its 95 % interval."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from roslin.errors import InputError, UsageError
from roslin.evaluate.published import COLUMNS
from roslin.evaluate.table import Row, Table
from roslin.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS_ACROSS = 4
INCHES_A_ROW = 0.26
DOTS_AN_INCH = 150
LONGEST_NAME = 34
COLOURS = {"published": "#4d4d4d", "own": "#c1440e"}
MEAN = "gmean"


def write_forest(table: Table, path: Path) -> None:
    """Write the plot to `path` as a PNG image.

    Raises UsageError where matplotlib is missing, InputError where the file cannot be written.
    """
    figure = draw_forest(table)
    try:
        figure.savefig(path, format="png", dpi=DOTS_AN_INCH)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}).") from None


def draw_forest(table: Table) -> "Figure":
    """The plot. Raises UsageError where matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise UsageError(f"A plot needs {error.name}: pip install 'roslin[eval]'") from None
    names = (*COLUMNS, MEAN)
    down = -(-len(names) // PANELS_ACROSS)
    height = down * (INCHES_A_ROW * len(table.rows) + 0.75) + 0.7
    figure = Figure(figsize=(14, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, PANELS_ACROSS)
    for name, panel in zip(names, panels.flat, strict=True):
        _draw_panel(panel, name, table.rows)
    for panel in panels[:, 0]:
        _name_rows(panel, table.rows)
    figure.suptitle(_title(table), fontsize=11)
    return figure


def intervals_of(row: Row) -> dict[str, Interval]:
    """What is drawn of a row, by panel."""
    found = {task: cell.share.interval for task, cell in row.cells.items()}
    if row.gmean:
        found[MEAN] = row.gmean.delta or Interval(*[row.gmean.estimate] * 3)
    return found


def _draw_panel(panel: "Axes", name: str, rows: Sequence[Row]) -> None:
    for place, row in enumerate(rows):
        found = intervals_of(row).get(name)
        if found:
            _draw_figure(panel, place, found, COLOURS[row.source], hollow=_is_partial(row, name))
    panel.set_title(name, fontsize=10, fontweight="bold" if name == MEAN else "normal")
    panel.set_ylim(len(rows) - 0.4, -0.6)  # the first row on top
    panel.set_yticks(range(len(rows)), [""] * len(rows))
    panel.tick_params(labelsize=8.5, length=0)
    panel.grid(visible=True, color="#e4e4e4", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[:].set_visible(False)


def _name_rows(panel: "Axes", rows: Sequence[Row]) -> None:
    panel.set_yticks(range(len(rows)), [_shortened(row.label) for row in rows])
    for text, row in zip(panel.get_yticklabels(), rows, strict=True):
        text.set_color(COLOURS[row.source])
        text.set_parse_math(False)  # a name with dollar signs is no formula


def _draw_figure(panel: "Axes", place: int, found: Interval, colour: str, *, hollow: bool) -> None:
    panel.hlines(place, found.low, found.high, color=colour, linewidth=1.6)
    panel.plot(
        found.estimate, place, marker="o", markersize=5, color=colour, markerfacecolor="white" if hollow else colour
    )


def _is_partial(row: Row, name: str) -> bool:
    return bool(row.partial) if name == MEAN else row.cells[name].partial


def _title(table: Table) -> str:
    shots = "zero-shot" if table.shots == 0 else f"{table.shots}-shot"
    said = [f"Accuracy with 95 % intervals, {shots}, profile {table.profile}"]
    if table.published:
        said.append("grey: published")
    if table.own:
        said.append("red: own runs")
    if any(row.partial for row in table.rows):
        said.append("hollow: fewer questions than the task has")
    return "; ".join(said)


def _shortened(name: str) -> str:
    """Names end with what tells them apart."""
    return name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}"
