"""The score of a blind sheet as people read it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from roslin.cli.screen import printable

if TYPE_CHECKING:
    from roslin.evaluate.pairwise import Agreement, JudgeScore, Score, Standing
    from roslin.statistics import Interval

COHEN, FLEISS = "Cohen's", "Fleiss'"
KAPPA_UNDEFINED = "no kappa: all verdicts are the same"


def show(score: "Score", console: Console) -> None:
    """Print a score: what it is of, the table of standings, and what is to be said of the judges."""
    for line in _head(score):
        console.print(Text(printable(line)))
    console.print(_table(score))
    for line in (*_overall(score), *_judges(score), *_agreements(score)):
        console.print(Text(printable(line)))


def _head(score: "Score") -> Iterator[str]:
    yield f"A is {score.model_a}"
    yield f"B is {score.model_b}"
    open_pairs = f"; {score.unanswered} not judged by anybody" if score.unanswered else ""
    same = f"; {score.identical} with the same answer twice" if score.identical else ""
    yield f"{_number(score.pairs, 'pair')}, {_number(len(score.judges), 'judge')}{open_pairs}{same}."


def _table(score: "Score") -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("", overflow="fold", min_width=8)
    for heading in ("pairs", "A\nwins", "B\nwins", "tie", "both\nbad", "A's win rate\n(ties half)"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row("all", *_cells(score.overall))
    for name, standing in score.by_category.items() if len(score.by_category) > 1 else ():
        table.add_row(Text(printable(f"  {name or '(no category)'}")), *_cells(standing))
    for judge in score.judges if len(score.judges) > 1 else ():
        table.add_row(Text(printable(f"judge {judge.judge}")), *_cells(judge.standing))
    return table


def _cells(standing: "Standing") -> list[str]:
    counts = standing.pairs, standing.wins, standing.losses, standing.ties, standing.both_bad
    return [*(f"{count:,}" for count in counts), str(standing.win_rate or "–")]


def _overall(score: "Score") -> Iterator[str]:
    overall = score.overall
    yield "Intervals are Wilson's, at 95 %, with pairs as units; with ties or several judges they are rather too wide."
    if overall.bootstrap:
        yield f"Resampling pairs: {overall.bootstrap}."
    decided = f"A ahead in {overall.pairs_won}, B in {overall.pairs_lost} of the pairs that are decided"
    yield f"Sign test (exact, two-sided): {decided}; p = {overall.sign_test:.3g}."


def _judges(score: "Score") -> Iterator[str]:
    for judge in score.judges:
        said = list(_traits(judge))
        yield f"Judge {judge.judge}: {'; '.join(said)}."


def _traits(judge: "JudgeScore") -> Iterator[str]:
    yield f"{judge.unanswered} not answered"
    if judge.left:
        yield f"of the sides chosen, left {_share(judge.left)}"
    if judge.orders:
        changed = judge.orders.inconsistent
        yield f"inconsistent (the order of the answers changed the verdict, a tie then) {_share(changed)}"
    if judge.orders and judge.orders.first:
        yield f"of the answers chosen, the one shown first {_share(judge.orders.first)}"


def _agreements(score: "Score") -> Iterator[str]:
    for agreement in score.agreement:
        yield f"{' and '.join(agreement.judges)} {_agree(agreement, COHEN)}."
    if score.agreement_of_all:
        yield f"All judges {_agree(score.agreement_of_all, FLEISS)}."


def _agree(agreement: "Agreement", whose: str) -> str:
    kappa = KAPPA_UNDEFINED if agreement.kappa is None else f"{whose} kappa {agreement.kappa:.3f}"
    return f"agree in {agreement.share:.0%} of {_number(agreement.items, 'common pair')} ({kappa})"


def _share(interval: "Interval") -> str:
    return f"{interval.estimate:.0%} [{interval.low:.0%}, {interval.high:.0%}]"


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
