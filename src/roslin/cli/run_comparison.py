"""Two compared runs as people read them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from roslin.cli.screen import printable

if TYPE_CHECKING:
    from roslin.workflows.compare_runs import CurveComparison, Difference, HeldOutComparison, RunComparison

LONGEST = 60
"""Characters of a value that are shown; --json has all of it."""


def show_comparison(found: "RunComparison", console: Console) -> None:
    """What differs, where the curves part, how the runs end, and the verdict."""
    _line(console, f"first:  {found.first}")
    _line(console, f"second: {found.second}")
    _show_differences("Recipes", found.recipe, console)
    _show_differences("Facts", found.facts, console)
    for curve in found.curves:
        _line(console, _in_words(curve, found.tolerance))
    if found.held_out is None:
        _line(console, "The runs were not measured on the same held-out records, so their ends are not compared.")
    else:
        _show_ends(found.held_out, console)
    verdict = "agree" if found.agrees else "do not agree"
    _line(console, f"The curves {verdict} within {found.tolerance:g} nats a token.")


def _show_differences(title: str, differences: Sequence["Difference"], console: Console) -> None:
    if not differences:
        _line(console, f"{title}: no difference.")
        return
    table = Table(title=f"{title} differ", title_justify="left")
    for name in ("", "first", "second"):
        table.add_column(name)
    for difference in differences:
        table.add_row(*(Text(_short(text)) for text in (difference.key, difference.first, difference.second)))
    console.print(table)


def _short(text: str | None) -> str:
    shown = "–" if text is None else printable(text)
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 1]}…"


def _in_words(curve: "CurveComparison", tolerance: float) -> str:
    if curve.largest is None:
        return f"{curve.name}: the runs have no update in common."
    text = f"{curve.name}: {curve.points:,} points in common"
    if curve.last_first != curve.last_second:
        text += f" (the first run's end at update {curve.last_first}, the second's at {curve.last_second})"
    if curve.parting:
        at = curve.parting
        text += f"; beyond {tolerance:g} from update {at.update} on ({at.first:.6f} and {at.second:.6f})"
    if curve.largest.gap == 0:
        return f"{text}; equal to the last digit."
    return f"{text}; largest difference {curve.largest.gap:+.3g} at update {curve.largest.update}."


def _show_ends(found: "HeldOutComparison", console: Console) -> None:
    from roslin.workflows.loss_table import loss_table

    title = f"Held-out loss after {found.first_update} and {found.second_update} updates"
    console.print(loss_table(title, ("first", "second"), found.whole, found.by_category))


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False)
