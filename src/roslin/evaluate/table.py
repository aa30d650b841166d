"""The table: the published rows beside those of one's own runs, each figure with its interval, ascending by gmean."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from roslin.evaluate.published import COLUMNS, PUBLISHED_TABLE, PublishedRow
from roslin.evaluate.scores import Metric, ModelScores, Profile, TaskScores
from roslin.evaluate.tasks import TASKS
from roslin.statistics import GeometricMean, Share, Tally, gmean_of, share_of

Source = Literal["published", "own"]
PUBLISHED_PROFILE: Profile = "raw"
PUBLISHED_SHOTS = 0


@dataclass(frozen=True)
class Cell:
    """What a model scored in one task."""

    metric: Metric
    tally: Tally
    size: int
    """Questions that the whole task has."""

    @cached_property
    def share(self) -> Share:
        """Share of right answers with its interval, which allows for questions that belong together."""
        return share_of(self.tally)

    @property
    def partial(self) -> bool:
        """Whether fewer questions were asked than the task has."""
        return self.tally.units < self.size


@dataclass(frozen=True)
class Row:
    """One model's line of the table."""

    label: str
    """Its name, made unique where several of one's own runs share it."""
    source: Source
    cells: Mapping[str, Cell]
    """By task, in the order of COLUMNS; a task that was not asked is missing."""
    scores: ModelScores | None
    """Question by question; of a published row only counts are known."""

    @cached_property
    def gmean(self) -> GeometricMean | None:
        """The geometric mean of all seven accuracies; None where a task is missing."""
        return None if self.missing else gmean_of([cell.tally for cell in self.cells.values()])

    @property
    def missing(self) -> tuple[str, ...]:
        """Tasks that were not asked."""
        return tuple(task for task in COLUMNS if task not in self.cells)

    @property
    def partial(self) -> tuple[str, ...]:
        """Tasks of which only some questions were asked."""
        return tuple(task for task, cell in self.cells.items() if cell.partial)


@dataclass(frozen=True)
class Table:
    """Rows of one profile and one number of shots; others do not compare with them."""

    profile: Profile
    shots: int
    rows: tuple[Row, ...]
    """Ascending by gmean, as on the model card; those without one last."""
    left_out: Mapping[tuple[Profile, int], int]
    """How many of one's own runs are of other profiles and shots."""
    metric: Metric | None = None
    """By what every task is scored; None is each task's own metric, which the published rows are by."""

    @property
    def own(self) -> tuple[Row, ...]:
        """The rows of one's own runs."""
        return tuple(row for row in self.rows if row.source == "own")

    @property
    def published(self) -> tuple[Row, ...]:
        """The published rows, if they stand in this table."""
        return tuple(row for row in self.rows if row.source == "published")


def make_table(
    runs: Sequence[ModelScores],
    *,
    profile: Profile = "raw",
    shots: int = 0,
    metric: Metric | None = None,
    published: bool = True,
) -> Table:
    """The table of the runs that have this profile and these shots, scored by `metric` or by each task's own.

    The published rows are of profile raw, no shots and each task's own metric, and stand in no other table. Raises
    ValueError for a run whose task is scored by another metric than its column.
    """
    fitting = [run for run in runs if (run.profile, run.shots) == (profile, shots)]
    comparable = published and (profile, shots, metric) == (PUBLISHED_PROFILE, PUBLISHED_SHOTS, None)
    rows = [published_row(row) for row in PUBLISHED_TABLE] if comparable else []
    rows += [own_row(run, label, metric) for run, label in zip(fitting, _labels(fitting), strict=True)]
    left_out: dict[tuple[Profile, int], int] = {}
    for run in runs:
        if (run.profile, run.shots) != (profile, shots):
            left_out[run.profile, run.shots] = left_out.get((run.profile, run.shots), 0) + 1
    return Table(profile, shots, tuple(sorted(rows, key=_rank)), left_out, metric)


def published_row(row: PublishedRow) -> Row:
    """A published model's line."""
    counts = zip(COLUMNS, row.right, strict=True)
    cells = {
        task: Cell(TASKS[task].metric, Tally.of_counts(right, TASKS[task].size), TASKS[task].size)
        for task, right in counts
    }
    return Row(row.name, "published", cells, None)


def own_row(run: ModelScores, label: str, metric: Metric | None = None) -> Row:
    """The line of one's own run; tasks without a column, and those of which no question was answered, are left out."""
    asked = {task: run.tasks[task] for task in COLUMNS if task in run.tasks and len(run.tasks[task].keys)}
    return Row(label, "own", {task: _own_cell(scores, metric) for task, scores in asked.items()}, run)


def cluster_labels(scores: TaskScores) -> list[str]:
    """Which questions belong together: of one cluster, or one and the same question asked twice."""
    return [cluster or key for cluster, key in zip(scores.clusters, scores.keys, strict=True)]


def _own_cell(scores: TaskScores, metric: Metric | None) -> Cell:
    task = TASKS[scores.task]
    column = metric or task.metric
    if scores.metric != column:
        raise ValueError(f"{scores.task} by {scores.metric}: the table's column is {column}")
    return Cell(scores.metric, Tally.of_outcomes(cluster_labels(scores), scores.right), task.size)


def _labels(runs: Sequence[ModelScores]) -> list[str]:
    """Names, with the dtype where a name occurs again, and a number where that does not tell them apart."""
    names = [run.name for run in runs]
    labels = [run.name if names.count(run.name) == 1 else f"{run.name} ({run.dtype})" for run in runs]
    return [
        label if labels.count(label) == 1 else f"{label} {labels[: place + 1].count(label)}"
        for place, label in enumerate(labels)
    ]


def _rank(row: Row) -> float:
    return row.gmean.estimate if row.gmean else math.inf
