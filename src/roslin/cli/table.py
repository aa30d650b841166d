"""`roslin table`: the published benchmark table with one's own runs, their intervals, and what differs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import orjson
import typer

from roslin.cli.screen import progress_console, result_console
from roslin.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from roslin.evaluate.scores import ModelScores
    from roslin.evaluate.table import Row, Table
    from roslin.evaluate.verdicts import Comparison

Format = Literal["text", "markdown", "csv", "json"]
Profile = Literal["raw", "instruct"]
Metric = Literal["acc", "acc_norm"]
USUAL_STORE = Path("roslin-results.sqlite")
"""`store.DEFAULT_STORE`, here so that the published rows alone are printed without loading what results need."""
OWN = "own:"
"""Before a name: one's own run of it, where a published row is called the same."""


def table(
    store: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Results of `roslin eval` (./roslin-results.sqlite).")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Compare each own run with this row: question by question with an own run (own:NAME where a published "
            "row is called the same), by counts with a published one.",
        ),
    ] = None,
    gaps: Annotated[
        bool, typer.Option("--gaps", help="Say which gaps between neighbouring published rows are noise, and stop.")
    ] = False,
    profile: Annotated[Profile, typer.Option(help="How questions were put; the published rows are raw.")] = "raw",
    shots: Annotated[int, typer.Option(min=0, help="Examples before each question; published with none.")] = 0,
    metric: Annotated[
        Metric | None, typer.Option(help="Score every task by this, without the published rows; else each by its own.")
    ] = None,
    published: Annotated[bool, typer.Option("--published/--no-published", help="With the published rows.")] = True,
    style: Annotated[
        Format, typer.Option("--format", help="What is printed; csv has the comparisons alone where there are any.")
    ] = "text",
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also draw a forest plot, with the interval of each figure.")
    ] = None,
) -> None:
    """Print the published benchmark table with your own runs, ascending by the geometric mean.

    Every figure has a 95 % interval. Runs of other profiles or shots stand in tables of their own. With --against, a
    verdict for each task says whether two models differ by more than noise.
    """
    from roslin.evaluate.table import make_table

    if gaps:
        if any((store, against, png, not published, profile != "raw", shots, metric)):
            raise UsageError("--gaps is of the published rows alone: give no other option with it but --format.")
        return _print_gaps(style)
    runs = load_scores(store, metric)
    found = make_table(runs, profile=profile, shots=shots, metric=metric, published=published)
    if not found.rows:
        raise InputError(_nothing(found, runs))
    comparisons = compare_all(found, against) if against is not None else []
    _print(found, comparisons, style)
    if png:
        from roslin.evaluate.forest import write_forest

        write_forest(found, png)
        progress_console().print(f"Wrote {png}", markup=False)
    return None


def load_scores(store: Path | None, metric: Metric | None = None) -> "list[ModelScores]":
    """What the store has; nothing where there is none in the usual place. Raises InputError for a bad store."""
    if store is None and not USUAL_STORE.exists():
        return []
    from roslin.evaluate.store import Store

    return Store.open(store or USUAL_STORE).scores(metric)


def compare_all(found: "Table", name: str) -> "list[Comparison]":
    """Each own run of the table held against the row called `name`. Raises UsageError where there is no such row."""
    from roslin.evaluate.verdicts import compare

    other = _row_called(found, name)
    others = [row for row in found.own if row is not other]
    if not others:
        raise UsageError(f"There is no own run of this profile and these shots to compare with {name}.")
    return [compare(row, other) for row in others]


def _row_called(found: "Table", name: str) -> "Row":
    """The published row of this name, or else the own run."""
    own = [row for row in found.own if row.label == name.removeprefix(OWN)]
    published = [] if name.startswith(OWN) else [row for row in found.published if row.label == name]
    for row in (*published, *own):
        return row
    names = ", ".join(dict.fromkeys(row.label for row in found.rows))
    raise UsageError(f"There is no row called {name} in this table. There are: {names}.")


def _nothing(found: "Table", runs: "Sequence[ModelScores]") -> str:
    wanted = f"There is no run of profile {found.profile} with {found.shots} shots"
    if not runs:
        return f"{wanted}, nor any other here: `roslin eval MODEL` makes one; --store FILE names where results are."
    there = ", ".join(f"--profile {profile} --shots {shots}" for profile, shots in found.left_out)
    return f"{wanted}. There are runs of: {there}."


def _print(found: "Table", comparisons: "Sequence[Comparison]", style: Format) -> None:
    """In CSV, comparisons stand in for the table: a file of both could not be read."""
    from roslin.evaluate.table_csv import csv_comparisons, csv_table
    from roslin.evaluate.table_json import comparison_object, table_object
    from roslin.evaluate.table_markdown import markdown_comparisons, markdown_table

    if style == "text":
        _show(found, comparisons)
    elif style == "markdown":
        _write("\n".join([markdown_table(found), *([markdown_comparisons(comparisons)] if comparisons else [])]))
    elif style == "csv":
        _write(csv_comparisons(comparisons) if comparisons else csv_table(found))
    else:
        _write_json(table_object(found) | {"comparisons": [comparison_object(each) for each in comparisons]})


def _show(found: "Table", comparisons: "Sequence[Comparison]") -> None:
    from roslin.cli.table_text import show_comparisons, show_table

    console = result_console()
    show_table(found, console)
    if comparisons:
        show_comparisons(comparisons, console)


def _print_gaps(style: Format) -> None:
    from roslin.cli.table_text import show_gaps
    from roslin.evaluate.table import make_table
    from roslin.evaluate.table_csv import csv_gaps
    from roslin.evaluate.table_json import gap_object
    from roslin.evaluate.table_markdown import markdown_gaps
    from roslin.evaluate.verdict_text import gap_notes
    from roslin.evaluate.verdicts import gaps

    found = gaps(make_table([]).rows)
    if style == "text":
        show_gaps(found, result_console())
    elif style == "json":
        _write_json({"gaps": [gap_object(gap) for gap in found], "notes": gap_notes(found)})
    else:
        _write(markdown_gaps(found) if style == "markdown" else csv_gaps(found))


def _write(text: str) -> None:
    sys.stdout.write(text)


def _write_json(found: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(found, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_INDENT_2))
    sys.stdout.buffer.flush()
