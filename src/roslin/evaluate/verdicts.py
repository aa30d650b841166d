"""Whether two rows of the table differ, task by task and in the mean, or whether what parts them is noise.

Two of one's own runs answered the same questions and are compared question by question. Of a published row only counts
are known: the comparison is unpaired, as if it had been asked other questions. As both were asked the same ones, and
what is hard for one is mostly hard for the other, such a test is too careful: it finds too few differences, not too
many.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from roslin.evaluate.published import COLUMNS
from roslin.evaluate.scores import TaskScores
from roslin.evaluate.table import Cell, Row, cluster_labels
from roslin.statistics import (
    GeometricDifference,
    Interval,
    Tally,
    gmean_difference,
    holm,
    paired_difference,
    paired_gmean_difference,
    share_difference,
    share_difference_p,
    share_of,
    sign_flip_p,
)

LEVEL = 0.05
"""A difference counts when its p, corrected for the number of tasks, is below this."""
PAIRED_TEST = "McNemar's exact test, mid-p; over clusters of questions by their signs"
UNPAIRED_TEST = "N - 1 chi-squared test"
PAIRED_INTERVAL = "paired bootstrap over clusters of questions"
UNPAIRED_INTERVAL = "Newcombe's method 10"


@dataclass(frozen=True)
class Verdict:
    """How far one row is above another in one task, and whether that is more than noise."""

    accuracy: float
    against: float
    """The other's accuracy; where the two are paired, both are of the questions that both answered."""
    items: int
    """Right answers above the other's, of as many questions as the row itself was asked."""
    questions: int
    difference: Interval
    p: float
    corrected_p: float
    """By Holm, for the number of tasks compared."""
    only_own: int | None
    """Questions that the row alone has right; None where they are not paired."""
    only_other: int | None
    """Questions that the other alone has right; None where they are not paired."""

    @property
    def differs(self) -> bool:
        """Whether it is more than noise."""
        return self.corrected_p < LEVEL

    def __str__(self) -> str:
        """The verdict as people read it."""
        return f"differs by {self.items:+,} of {self.questions:,} items" if self.differs else "within noise"


@dataclass(frozen=True)
class Comparison:
    """One row held against another."""

    name: str
    against: str
    paired: bool
    verdicts: Mapping[str, Verdict]
    """By task, in the order of COLUMNS; tasks that not both were asked are missing."""
    gmean: GeometricDifference | None
    """None where a task is missing. It is one figure, and its p is not corrected."""
    notes: tuple[str, ...]
    """What to know of the questions compared."""

    @property
    def gmean_differs(self) -> bool | None:
        """Whether the means differ by more than noise; None where that cannot be told."""
        return None if self.gmean is None or self.gmean.p is None else self.gmean.p < LEVEL


@dataclass(frozen=True)
class Gap:
    """What parts a row of the table from the next."""

    comparison: Comparison
    corrected_p: float | None
    """p of the means' difference, by Holm for the number of gaps; None where a mean has none."""

    @property
    def verdict(self) -> Literal["differs", "unsure", "noise"] | None:
        """Whether the means differ: `unsure` where the gap passes alone, but not as one of so many; None if unknown."""
        if self.corrected_p is None:
            return None
        if self.corrected_p < LEVEL:
            return "differs"
        return "unsure" if self.comparison.gmean_differs else "noise"


@dataclass(frozen=True)
class _Found:
    """What is known of a task before the correction for all of them."""

    accuracies: tuple[float, float]
    questions: int
    difference: Interval
    p: float
    only: tuple[int, int] | None


def compare(row: Row, other: Row) -> Comparison:
    """How far `row` is above `other`: question by question where both are one's own runs, by counts otherwise."""
    return _compare_paired(row, other) if row.scores and other.scores else _compare_counts(row, other)


def gaps(rows: Sequence[Row]) -> list[Gap]:
    """Each row held against the one before it; published ones by their counts."""
    comparisons = [compare(row, before) for before, row in pairwise(rows)]
    known = [found.gmean.p for found in comparisons if found.gmean and found.gmean.p is not None]
    corrected = iter(holm(known))
    return [Gap(found, next(corrected) if found.gmean and found.gmean.p is not None else None) for found in comparisons]


def _compare_counts(row: Row, other: Row) -> Comparison:
    shared = [task for task in COLUMNS if task in row.cells and task in other.cells]
    found = {task: _by_counts(row.cells[task], other.cells[task]) for task in shared}
    tallies = [[each.cells[task].tally for task in shared] for each in (other, row)]
    mean = gmean_difference(*tallies) if len(shared) == len(COLUMNS) else None
    notes = (*_missing(row), *_missing(other), *_partial(row), *_partial(other))
    return Comparison(row.label, other.label, False, _corrected(found), mean, notes)


def _by_counts(cell: Cell, other: Cell) -> _Found:
    """Counts hide which questions belong together, but they are the same: the design effect known goes for both."""
    effects = (share.design_effect for share in (cell.share, other.share))
    effect = max([1.0, *(known for known in effects if known > 1)])
    first, second = (share_of(each.tally, design_effect=effect) for each in (other, cell))
    return _Found(
        (second.interval.estimate, first.interval.estimate),
        second.trials,
        share_difference(first, second),
        share_difference_p(first, second),
        None,
    )


def _compare_paired(row: Row, other: Row) -> Comparison:
    assert row.scores
    assert other.scores
    pairs: dict[str, Tally] = {}
    found: dict[str, _Found] = {}
    apart: list[str] = []
    for task in (task for task in COLUMNS if task in row.cells and task in other.cells):
        asked, others = row.scores.tasks[task], other.scores.tasks[task]
        ours, theirs = _common(asked.keys, others.keys)
        if len(ours) < max(len(asked.keys), len(others.keys)):
            apart.append(f"{task} {len(ours):,} (of {len(asked.keys):,} and {len(others.keys):,})")
        if ours:
            pairs[task] = _pair(asked, ours, others, theirs)
            found[task] = _by_question(pairs[task], asked, ours, others, theirs)
    mean = paired_gmean_difference(list(pairs.values())) if len(pairs) == len(COLUMNS) else None
    common = [f"Only questions that both answered are compared: {', '.join(apart)}."] if apart else []
    notes = (*_missing(row), *_missing(other), *common)
    return Comparison(row.label, other.label, True, _corrected(found), mean, notes)


def _pair(asked: TaskScores, ours: Sequence[int], others: TaskScores, theirs: Sequence[int]) -> Tally:
    labels = cluster_labels(asked)
    return Tally.of_outcomes([labels[place] for place in ours], others.right[theirs], asked.right[ours])


def _by_question(
    pair: Tally, asked: TaskScores, ours: Sequence[int], others: TaskScores, theirs: Sequence[int]
) -> _Found:
    against, accuracy = pair.shares_M.tolist()
    right, other_right = asked.right[ours], others.right[theirs]
    only = int(np.sum(right & ~other_right)), int(np.sum(other_right & ~right))
    return _Found((accuracy, against), pair.units, paired_difference(pair), sign_flip_p(pair), only)


def _common(first: Sequence[str], second: Sequence[str]) -> tuple[list[int], list[int]]:
    """Places of the questions in both lists, paired; a question that is there twice is paired twice at most."""
    places = {known: place for place, known in enumerate(_numbered(second))}
    pairs = [(place, places[known]) for place, known in enumerate(_numbered(first)) if known in places]
    return [place for place, _ in pairs], [place for _, place in pairs]


def _numbered(keys: Sequence[str]) -> list[tuple[str, int]]:
    """Each key with how often it was there before."""
    seen: Counter[str] = Counter()
    numbered = []
    for key in keys:
        numbered.append((key, seen[key]))
        seen[key] += 1
    return numbered


def _corrected(found: Mapping[str, _Found]) -> dict[str, Verdict]:
    corrected = holm([task.p for task in found.values()])
    return {name: _verdict(task, p) for (name, task), p in zip(found.items(), corrected, strict=True)}


def _verdict(task: _Found, corrected_p: float) -> Verdict:
    accuracy, against = task.accuracies
    items = round((accuracy - against) * task.questions)
    only_own, only_other = task.only or (None, None)
    return Verdict(accuracy, against, items, task.questions, task.difference, task.p, corrected_p, only_own, only_other)


def _missing(row: Row) -> list[str]:
    return [f"{row.label} was not asked {', '.join(row.missing)}: its gmean is not known."] if row.missing else []


def _partial(row: Row) -> list[str]:
    asked = [f"{row.cells[task].tally.units:,} of {row.cells[task].size:,} of {task}" for task in row.partial]
    return [f"{row.label} was asked only some of the questions: {', '.join(asked)}."] if asked else []
