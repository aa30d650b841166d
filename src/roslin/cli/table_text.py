"""The table, its comparisons and its gaps as people read them in a terminal."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from roslin.evaluate.published import COLUMNS
from roslin.evaluate.table import Cell, Row, Table
from roslin.evaluate.table_markdown import MARK
from roslin.evaluate.verdicts import LEVEL, Comparison, Gap, Verdict
from roslin.statistics import GeometricDifference, Interval

WIDE = 128
"""Columns from which on a figure's interval stands beside it; where there are fewer, it stands below."""
ROOMY = 90
"""Columns from which on two blanks stand between columns; where there are fewer, one."""
_WITHIN_NOISE = "Within noise: no difference was shown; how large one may yet be, the interval says."
HEADINGS = {
    "openbookqa": "open-\nbookqa",
    "arc_easy": "arc\neasy",
    "winogrande": "wino-\ngrande",
    "hellaswag": "hella-\nswag",
    "arc_challenge": "arc\nchall.",
}


def show_table(table: Table, console: Console) -> None:
    """Print the table with half the width of each interval, and below it what is to be known of the figures."""
    wide = console.width >= WIDE
    grid = _grid(console)
    grid.add_column("model", overflow="fold")
    for task in (*COLUMNS, "gmean"):
        grid.add_column(HEADINGS.get(task, task), justify="right", no_wrap=True)
    for row in table.rows:
        style = "bold" if row.source == "own" else ""
        grid.add_row(*(Text(text, style) for text in (_name(row, wide), *_figures(row, wide))))
    console.print(grid)
    _print_notes(console, table_notes(table))


def show_comparisons(comparisons: Sequence[Comparison], console: Console) -> None:
    """Print a verdict a task of each comparison, and one of the mean; then how they were made."""
    for found in comparisons:
        _show_comparison(found, console)
    paired = {found.paired: None for found in comparisons}
    _print_notes(console, ["", *(_method(each) for each in paired), _WITHIN_NOISE])


def _show_comparison(found: Comparison, console: Console) -> None:
    other = "own run, question by question" if found.paired else "published, by counts"
    console.print(Text(f"\n{found.name} against {found.against} ({other})"))
    grid = _grid(console)
    grid.add_column("task")
    for heading in ("own", "other", "difference", "p", "verdict"):
        grid.add_column(heading, justify="left" if heading == "verdict" else "right", no_wrap=heading != "verdict")
    for task, verdict in found.verdicts.items():
        grid.add_row(task, *_verdict_cells(verdict))
    if found.gmean:
        grid.add_row("gmean", "", "", *_mean_cells(found.gmean, found.paired), _mean_verdict(found))
    console.print(grid)
    _print_notes(console, found.notes)


def show_gaps(gaps: Sequence[Gap], console: Console) -> None:
    """Print what parts each row from the one before it, and whether that is more than noise."""
    grid = _grid(console)
    grid.add_column("from one row to the next", overflow="fold")
    for heading in ("gap", "95 %", "p", "Holm", "tasks that differ"):
        grid.add_column(heading, justify="left" if heading.startswith("tasks") else "right")
    for gap in gaps:
        found, mean = gap.comparison, gap.comparison.gmean
        apart = ", ".join(task for task, verdict in found.verdicts.items() if verdict.differs) or "none"
        assert mean and mean.delta and mean.p is not None and gap.corrected_p is not None
        figures = (f"{mean.estimate:.4f}", _bounds(mean.delta, 3), _p(mean.p), _p(gap.corrected_p))
        grid.add_row(Text(f"{found.against}\n{found.name}"), *figures, apart)
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
        notes.append("Published rows: the model card of databricks/dolly-v2-7b, as counts.")
    if any(row.partial for row in table.rows):
        notes.append(f"{MARK} of fewer questions than the task has.")
    notes += [f"{row.label}: no gmean without {', '.join(row.missing)}." for row in table.rows if row.missing]
    notes += [
        f"Left out: {_runs(runs)} of profile {profile} with {shots} shots (--profile {profile} --shots {shots})."
        for (profile, shots), runs in table.left_out.items()
    ]
    return notes


def _method(paired: bool) -> str:
    corrected = "corrected for the number of tasks (Holm); that of gmean is not, and is by the delta method"
    if paired:
        return (
            f"p: McNemar's exact test (mid-p), {corrected}. Intervals: 95 %, not corrected, by paired bootstrap. "
            "boolq's passages are allowed for."
        )
    return (
        f"p: N - 1 chi-squared test, {corrected}. Intervals: 95 %, not corrected, by Newcombe's method. Of a published "
        "row only counts are known; were its answers known question by question, smaller differences would show."
    )


def gap_notes(gaps: Sequence[Gap]) -> list[str]:
    """What the gaps come to."""
    alone = sum(bool(gap.comparison.gmean_differs) for gap in gaps)
    corrected = sum(gap.corrected_p is not None and gap.corrected_p < LEVEL for gap in gaps)
    return [
        f"Of {len(gaps)} gaps in gmean, {alone} are more than noise when each is tested alone (p < {LEVEL}), and "
        f"{corrected} when corrected for being {len(gaps)} (Holm). The rest are noise: they settle no order.",
        "Tasks: N - 1 chi-squared tests, corrected for the seven (Holm). Rows can differ by task and not in the mean.",
        "Only counts are published. All models were asked the same questions, so that tests of counts are too careful: "
        "a gap called noise here might show question by question.",
    ]


def _grid(console: Console) -> Grid:
    gap = 1 if console.width >= ROOMY else 0
    return Grid(box=box.SIMPLE_HEAD, padding=(0, gap, 0, 0), pad_edge=False, show_edge=False)


def _print_notes(console: Console, notes: Sequence[str]) -> None:
    for note in notes:
        console.print(Text(note))


def _clustered(table: Table) -> list[Cell]:
    cells = [row.cells["boolq"] for row in table.own if "boolq" in row.cells]
    return [cell for cell in cells if cell.tally.clusters < cell.tally.units]


def _asked(table: Table) -> str:
    return f"profile {table.profile}, {'zero-shot' if table.shots == 0 else f'{table.shots} shots'}"


def _runs(number: int) -> str:
    return "1 run" if number == 1 else f"{number:,} runs"


def _name(row: Row, wide: bool) -> str:
    if row.scores is None:
        return row.label
    return _beside(row.label, f"(own, {row.scores.dtype})", wide)


def _figures(row: Row, wide: bool) -> list[str]:
    cells = [_cell(row.cells[task], wide) if task in row.cells else "–" for task in COLUMNS]
    mean = row.gmean
    return [*cells, _figure(mean.estimate, mean.delta, bool(row.partial), wide) if mean else "–"]


def _beside(first: str, second: str, wide: bool) -> str:
    return f"{first} {second}" if wide else f"{first}\n{second}"


def _cell(cell: Cell, wide: bool) -> str:
    return _figure(cell.share.interval.estimate, cell.share.interval, cell.partial, wide)


def _figure(estimate: float, interval: Interval | None, partial: bool, wide: bool) -> str:
    half = f"±{interval.half_width:.3f}".replace("±0.", "±.") if interval else ""
    return _beside(f"{estimate:.3f}{MARK if partial else ''}", half, wide)


def _verdict_cells(verdict: Verdict) -> tuple[str, ...]:
    difference = f"{verdict.difference.estimate:+.3f} {_bounds(verdict.difference, 3)}"
    said = f"differs {verdict.items:+,} of {verdict.questions:,}" if verdict.differs else str(verdict)
    return f"{verdict.accuracy:.3f}", f"{verdict.against:.3f}", difference, _p(verdict.corrected_p), said


def _mean_cells(mean: GeometricDifference, paired: bool) -> tuple[str, str]:
    interval = mean.bootstrap if paired else mean.delta
    shown = f" {_bounds(interval, 3)}" if interval else ""
    return f"{mean.estimate:+.3f}{shown}", "" if mean.p is None else _p(mean.p)


def _mean_verdict(found: Comparison) -> str:
    differs = found.gmean_differs
    return "not told" if differs is None else "differs" if differs else "within noise"


def _bounds(interval: Interval, digits: int) -> str:
    return f"[{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"


def _p(value: float) -> str:
    return "<.001" if value < 0.001 else f"{value:.3f}".removeprefix("0") if value < 1 else "1"
