"""What a model scored in the benchmarks, beside its base, with what its training records hold of the questions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from roslin.evaluate.published import COLUMNS
from roslin.evaluate.scores import Metric, Profile
from roslin.evaluate.table import Cell, Row, own_row
from roslin.evaluate.tasks import TASKS
from roslin.evaluate.verdicts import Comparison, Verdict, compare
from roslin.publish.evidence.part import Part, Range
from roslin.publish.evidence.public import public_name, public_text
from roslin.statistics import GeometricDifference, Tally

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from roslin.evaluate.scores import ModelScores


class TaskEvidence(Part):
    """Right answers in one task; the interval allows for questions that belong together."""

    metric: Metric
    right: int = Field(ge=0)
    asked: int = Field(ge=1)
    share: Range


class RowEvidence(Part):
    """One model's line of the table."""

    name: str
    dtype: str
    tasks: dict[str, TaskEvidence]
    gmean: Range | None

    @classmethod
    def of(cls, row: Row, dtype: str) -> RowEvidence:
        """The same as plain values."""
        tasks = {
            task: TaskEvidence(
                metric=cell.metric,
                right=int(cell.tally.totals_M[0]),
                asked=cell.tally.units,
                share=Range.of(cell.share.interval),
            )
            for task, cell in row.cells.items()
        }
        delta = row.gmean.delta if row.gmean else None
        return cls(name=public_name(row.label), dtype=dtype, tasks=tasks, gmean=Range.of(delta) if delta else None)

    @property
    def row(self) -> Row:
        """The line by its counts."""
        known = [task for task in COLUMNS if task in self.tasks]
        cells = {
            task: Cell(
                self.tasks[task].metric,
                Tally.of_counts(self.tasks[task].right, self.tasks[task].asked),
                TASKS[task].size,
            )
            for task in known
        }
        return Row(self.name, "own", cells, None)

    @property
    def whole(self) -> list[str]:
        """The tasks of which every question was asked."""
        return [task for task in COLUMNS if task in self.tasks and self.tasks[task].asked == TASKS[task].size]


class VerdictEvidence(Part):
    """How far a model is above its base in one task."""

    accuracy: float
    against: float
    items: int
    questions: int
    difference: Range
    p: float
    corrected_p: float
    only_own: int | None
    only_other: int | None


class MeanEvidence(Part):
    """How far the geometric means are apart."""

    estimate: float
    interval: Range | None
    p: float | None


class PairedEvidence(Part):
    """A model held against its base, question by question."""

    verdicts: dict[str, VerdictEvidence]
    gmean: MeanEvidence | None
    notes: list[str]

    @classmethod
    def of(cls, found: Comparison) -> PairedEvidence:
        """The same as plain values."""
        mean = found.gmean
        return cls(
            verdicts={task: _verdict_evidence(each) for task, each in found.verdicts.items()},
            gmean=MeanEvidence(estimate=mean.estimate, interval=Range.of(mean.delta) if mean.delta else None, p=mean.p)
            if mean
            else None,
            notes=[public_text(note) for note in found.notes],
        )

    def comparison(self, name: str, against: str) -> Comparison:
        """The comparison."""
        mean = None
        if self.gmean:
            delta = self.gmean.interval.interval if self.gmean.interval else None
            mean = GeometricDifference(self.gmean.estimate, None, delta, None, self.gmean.p)
        verdicts = {task: _verdict(each) for task, each in self.verdicts.items()}
        return Comparison(name, against, True, verdicts, mean, tuple(self.notes))


def _verdict_evidence(found: Verdict) -> VerdictEvidence:
    values = {name: getattr(found, name) for name in VerdictEvidence.model_fields if name != "difference"}
    return VerdictEvidence(**values, difference=Range.of(found.difference))


def _verdict(found: VerdictEvidence) -> Verdict:
    values = {name: getattr(found, name) for name in VerdictEvidence.model_fields if name != "difference"}
    return Verdict(**values, difference=found.difference.interval)


class OverlapEvidence(Part):
    """What training records hold of one task's questions."""

    records: int
    questions: int
    touched: int
    clean_accuracy: float | None
    """On the questions that no record touches; None where there are none."""


class BenchmarkEvidence(Part):
    """What a model scored under one way of asking."""

    fingerprint: str | None
    """Of the weights that were asked."""
    profile: Profile
    shots: int = Field(ge=0)
    own: RowEvidence
    base: RowEvidence | None = None
    paired: PairedEvidence | None = None
    """Where the base was measured by Roslin too."""
    contamination: dict[str, OverlapEvidence] = Field(default_factory=dict)
    """By task; none where it was not looked for."""
    remarks: list[str] = Field(default_factory=list)
    """What must be said of the figures."""

    @property
    def way(self) -> tuple[str, int]:
        """The way of asking: figures of others do not compare with these."""
        return self.profile, self.shots

    @property
    def order(self) -> tuple[bool, int]:
        """That of the published table comes first."""
        return self.profile != "raw", self.shots

    @classmethod
    def of(
        cls,
        scores: ModelScores,
        *,
        fingerprint: str | None,
        base: ModelScores | None = None,
        contamination: Mapping[str, OverlapEvidence] | None = None,
        remarks: Sequence[str] = (),
    ) -> BenchmarkEvidence:
        """Scores beside those of the base, asked in the same way."""
        row = own_row(scores, scores.name)
        other = own_row(base, base.name) if base else None
        return cls(
            fingerprint=fingerprint,
            profile=scores.profile,
            shots=scores.shots,
            own=RowEvidence.of(row, scores.dtype),
            base=RowEvidence.of(other, base.dtype) if base and other else None,
            paired=PairedEvidence.of(compare(row, other)) if other else None,
            contamination=dict(contamination or {}),
            remarks=[public_text(remark) for remark in remarks],
        )
