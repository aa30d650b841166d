"""How `roslin eval` shows what a model makes of held-out records, and of instructions that a program can check."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from roslin.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from roslin.evaluate.ifeval import IfevalComparison, IfevalReport
    from roslin.evaluate.responses import (
        Change,
        Figure,
        Figures,
        Metric,
        Progress,
        ResponseComparison,
        ResponseReport,
    )
    from roslin.statistics import Interval

SHOWN_LEFT_OUT = 5
LIKELIHOOD = {
    "loss_without_end": "loss without end key",
    "perplexity_without_end": "perplexity without end key",
    "bits_per_byte": "bits per byte",
}
ANSWERS = {"rouge_l": "ROUGE-L", "stopped": "stopped, %", "length": "mean tokens"}
"""What the tables of categories have room for, and their headings; the JSON has all."""
DECIDED = ("bits_per_byte", "rouge_l", "stopped")


@contextmanager
def response_progress(console: Console, title: str) -> "Iterator[Callable[[Progress], None]]":
    """What `judge_responses` and `judge_ifeval` tell their progress to: a bar for each stage, on a terminal only."""
    with Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as bars:
        tasks: dict[tuple[str, int], Any] = {}

        def tell(progress: "Progress") -> None:
            what = progress.stage, progress.total  # records and prompts may be answered under one title
            if what not in tasks:
                tasks[what] = bars.add_task(f"{title}: {progress.stage}", total=progress.total)
            bars.update(tasks[what], completed=progress.done)

        yield tell


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object a line; what is infinite or no number is null."""
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


def write_samples(reports: "Sequence[ResponseReport]", path: Path, *, count: int, seed: int) -> None:
    """Write the page of unselected samples. Raises MachineError when the file cannot be written."""
    from roslin.evaluate.responses import samples_page

    page = samples_page(reports, count=count, seed=seed)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise MachineError(f"{path} cannot be written ({error.strerror or error}); name another file.") from None


def show_responses(report: "ResponseReport", console: Console) -> None:
    """One model's figures, overall and by category, and what was left out."""
    from roslin.evaluate.responses import METRICS
    from roslin.statistics import FEWEST_FOR_INTERVALS

    references = report.references.by_metric
    table = _table(f"{report.model}: {len(report.judged)} held-out records")
    for name in ("", "", "95 % interval", "references"):
        table.add_column(name, justify="left" if not name else "right")
    for metric in METRICS:
        figure = report.overall.by_metric[metric.name]
        reference = _estimate(metric, references[metric.name]) if metric.name in references else ""
        _add(table, metric.title, _estimate(metric, figure), _interval(metric, figure), reference)
    _add(table, "length: quartiles, tokens", _quartiles(report.overall), "", _quartiles(report.references))
    console.print(table)
    console.print(_categories(report, "The records' responses by category", LIKELIHOOD))
    console.print(_categories(report, "The model's answers by category", ANSWERS))
    if any(figures.records < FEWEST_FOR_INTERVALS for figures in report.by_category.values()):
        console.print(f"Categories of fewer than {FEWEST_FOR_INTERVALS} records have intervals for shares alone.")
    console.print(f"Answers {report.drawing}; weights in {report.dtype}.", soft_wrap=True)
    _say_left_out(report, console)


def show_comparison(comparison: "ResponseComparison", console: Console) -> None:
    """Two models on the same records: every metric with its paired change, and the categories' verdicts."""
    before, after = comparison.before.model, comparison.after.model
    table = _table(f"{before} → {after}: {len(comparison.pairs)} held-out records, paired")
    for name in ("", before, after, "change, 95 % interval", "verdict"):
        table.add_column(Text(name), justify="right" if name in (before, after) else "left")
    for change in comparison.overall.by_metric.values():
        metric = change.metric
        sides = _estimate(metric, change.before), _estimate(metric, change.after)
        _add(table, metric.title, *sides, _change(change), change.verdict)
    console.print(table)
    console.print(_category_verdicts(comparison))
    console.print(
        f"Answers {comparison.after.drawing}. A verdict is by a paired test at 5 %, corrected (Holm) for the metrics "
        "compared, and in the table of categories for the categories; an interval stands by itself.",
        soft_wrap=True,
    )
    if any(change.change is None for change in comparison.overall.by_metric.values()):
        console.print(
            "Not comparable: losses a token, where the two models cut a record's response, or the end key after it, "
            "into tokens of other numbers. Bits per byte, which leave out the end key, compare.",
            soft_wrap=True,
        )
    if comparison.unpaired:
        console.print(f"In no difference, as only one model could take them: records {_listed(comparison.unpaired)}.")


def show_ifeval(report: "IfevalReport", console: Console) -> None:
    """How many instructions a model follows: overall and by kind, strictly and loosely read."""
    table = _table(f"{report.model}: instructions that a program can check ({report.source})")
    for name in ("", "of", "strict", "95 % interval", "loose", "95 % interval"):
        table.add_column(name, justify="left" if not name else "right")
    instructions = sum(len(each.strict) for each in report.followed)
    strict, loose = report.strict, report.loose
    _add(table, "prompts, all of each", str(len(report.followed)), *_shares(strict.prompts, loose.prompts))
    _add(table, "instructions", str(instructions), *_shares(strict.instructions, loose.instructions))
    table.add_section()
    for kind, share in strict.by_kind.items():
        count = sum(i.kind == kind for each in report.followed for i in each.prompt.instructions)
        _add(table, kind, str(count), *_shares(share, loose.by_kind[kind]))
    console.print(table)
    console.print(f"Answers {report.drawing}.", soft_wrap=True)
    if report.unchecked:
        console.print(f"Left out, as the answer's language is not checked: prompts {_listed(report.unchecked)}.")
    if report.too_long:
        console.print(f"Left out, as the model has too few positions: prompts {_listed(report.too_long)}.")


def show_ifeval_comparison(comparison: "IfevalComparison", console: Console) -> None:
    """How many more or fewer instructions the second model follows."""
    before, after = comparison.before, comparison.after
    table = _table(f"{before} → {after}: instructions followed in {comparison.pairs} prompts, paired")
    for name in ("", before, after, "change, 95 % interval", "verdict"):
        table.add_column(Text(name), justify="right" if name in (before, after) else "left")
    for title, shifts in (("prompts, all of each", comparison.prompts), ("instructions", comparison.instructions)):
        for reading, shift in shifts.items():
            change = f"{_points(shift.change.estimate)} [{_points(shift.change.low)}, {_points(shift.change.high)}]"
            sides = f"{100 * shift.before:.1f} %", f"{100 * shift.after:.1f} %"
            _add(table, f"{title}, {reading}", *sides, change, shift.verdict)
    console.print(table)


def _table(title: str) -> Table:
    return Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)


def _add(table: Table, *cells: str) -> None:
    """Add a row of plain text: in brackets, an interval may look like markup."""
    table.add_row(*map(Text, cells))


def _number(metric: "Metric", value: float) -> str:
    return f"{100 * value:.1f} %" if metric.form == "share" else f"{value:,.{metric.decimals}f}"


def _estimate(metric: "Metric", figure: "Figure") -> str:
    return _number(metric, figure.estimate)


def _interval(metric: "Metric", figure: "Figure") -> str:
    if figure.interval is None:
        return "too few records"
    return f"{_number(metric, figure.interval.low)} – {_number(metric, figure.interval.high)}"


def _quartiles(figures: "Figures") -> str:
    length = figures.length
    return f"{length.lower:,.0f} · {length.median:,.0f} · {length.upper:,.0f}"


def _categories(report: "ResponseReport", title: str, headings: Mapping[str, str]) -> Table:
    from roslin.evaluate.responses.metrics import BY_NAME

    table = _table(f"{title} (95 % intervals)")
    table.add_column("category", no_wrap=True)
    for name in ("records", *headings.values()):
        table.add_column(name, justify="right")
    for category, figures in report.by_category.items():
        cells = [_with_interval(BY_NAME[name], figures.by_metric[name]) for name in headings]
        _add(table, category, str(figures.records), *cells)
    return table


def _with_interval(metric: "Metric", figure: "Figure") -> str:
    estimate = _number(metric, figure.estimate).removesuffix(" %")
    if figure.interval is None:
        return estimate
    ends = (_number(metric, end).removesuffix(" %") for end in (figure.interval.low, figure.interval.high))
    return f"{estimate} [{', '.join(ends)}]"


def _category_verdicts(comparison: "ResponseComparison") -> Table:
    from roslin.evaluate.responses.metrics import BY_NAME

    table = _table("By category")
    table.add_column("category", no_wrap=True)
    table.add_column("records", justify="right")
    for name in DECIDED:
        table.add_column(BY_NAME[name].title)
    for category, found in comparison.by_category.items():
        _add(table, category, str(found.records), *(found.by_metric[name].verdict for name in DECIDED))
    return table


def _change(change: "Change") -> str:
    if change.change is None:
        return "–"
    numbers = [change.change.estimate]
    if change.change.interval is not None:
        numbers += [change.change.interval.low, change.change.interval.high]
    estimate, *ends = (_difference(change.metric, number) for number in numbers)
    return f"{estimate} [{', '.join(ends)}]" if ends else estimate


def _difference(metric: "Metric", value: float) -> str:
    if metric.form == "exponential":
        return f"× {value:.3g}"
    return _points(value) if metric.form == "share" else f"{value:+,.{metric.decimals}f}"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _shares(*intervals: "Interval") -> list[str]:
    cells = []
    for interval in intervals:
        cells += [f"{100 * interval.estimate:.1f} %", f"{100 * interval.low:.1f} – {100 * interval.high:.1f} %"]
    return cells


def _say_left_out(report: "ResponseReport", console: Console) -> None:
    if not report.left_out:
        return
    given = len(report.judged) + len(report.left_out)
    console.print(f"Left out, being too long: {len(report.left_out)} of {given} records.")
    for record in report.left_out[:SHOWN_LEFT_OUT]:
        console.print(f"  {record}", soft_wrap=True)
    if len(report.left_out) > SHOWN_LEFT_OUT:
        rest = [record.number for record in report.left_out[SHOWN_LEFT_OUT:]]
        console.print(f"  and for the same reasons records {_listed(rest)}", soft_wrap=True)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
