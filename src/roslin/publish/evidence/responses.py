"""What a model made of held-out records: figures, the same of its base, and answers that nobody selected."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field

from roslin.evaluate.responses import Figure, Judged, ResponseReport, compare_responses
from roslin.evaluate.responses.samples import shuffled
from roslin.publish.evidence.limits import shortened
from roslin.publish.evidence.part import Part, Range
from roslin.publish.evidence.public import public_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from roslin.evaluate.ifeval import IfevalReport

SAMPLES = 5


class FigureEvidence(Part):
    """A figure with its interval, where records are enough for one; None for what is beyond the largest number."""

    estimate: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, figure: Figure) -> FigureEvidence:
        """The same as plain values."""
        values = {name: _finite(value) for name, value in figure.as_dict().items()}
        return cls(**values)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


class SideEvidence(Part):
    """One model's figures."""

    name: str
    dtype: str
    figures: dict[str, FigureEvidence]
    """By the names of METRICS."""


class SampleAnswer(Part):
    """What one model answered; None where the record is too long for it."""

    answer: str | None
    faults: list[str]


class SampleEvidence(Part):
    """A record that the seed picked, with the answers; texts are cut."""

    instruction: str
    context: str
    response: str
    own: SampleAnswer
    base: SampleAnswer | None


class FollowedEvidence(Part):
    """How many instructions that a program can check were followed."""

    fingerprint: str | None
    """Of the weights that were asked."""
    source: str
    """Of the prompts."""
    drawing: str
    prompts: int = Field(ge=0)
    instructions: int = Field(ge=0)
    prompts_followed: Range
    """Strictly read: prompts all of whose instructions are."""
    instructions_followed: Range

    @classmethod
    def of(cls, report: IfevalReport, *, fingerprint: str | None) -> FollowedEvidence:
        """What of a report a card says."""
        return cls(
            fingerprint=fingerprint,
            source=public_name(report.source),
            drawing=str(report.drawing),
            prompts=len(report.followed),
            instructions=sum(len(each.strict) for each in report.followed),
            prompts_followed=Range.of(report.strict.prompts),
            instructions_followed=Range.of(report.strict.instructions),
        )


class ResponsesEvidence(Part):
    """What a card says of held-out records."""

    fingerprint: str | None
    """Of the weights that were judged."""
    drawing: str
    """How answers were drawn, in words."""
    records: int = Field(ge=0)
    left_out: int = Field(ge=0)
    own: SideEvidence
    base: SideEvidence | None = None
    verdicts: dict[str, str] = Field(default_factory=dict)
    """By metric: the change from the base, in words."""
    seed: int = 0
    """Of the samples."""
    samples: list[SampleEvidence] = Field(default_factory=list)

    @classmethod
    def of(
        cls,
        report: ResponseReport,
        base: ResponseReport | None = None,
        *,
        fingerprint: str | None,
        seed: int = 0,
    ) -> ResponsesEvidence:
        """What of the reports a card says. Raises what `compare_responses` raises."""
        changes = compare_responses(base, report).overall.by_metric if base else {}
        return cls(
            fingerprint=fingerprint,
            drawing=str(report.drawing),
            records=len(report.judged),
            left_out=len(report.left_out),
            own=_side(report),
            base=_side(base) if base else None,
            verdicts={name: change.verdict for name, change in changes.items()},
            seed=seed,
            samples=_samples(report, base, seed),
        )


def _side(report: ResponseReport) -> SideEvidence:
    figures = {name: FigureEvidence.of(figure) for name, figure in report.overall.by_metric.items()}
    return SideEvidence(name=public_name(report.model), dtype=report.dtype, figures=figures)


def _samples(report: ResponseReport, base: ResponseReport | None, seed: int) -> list[SampleEvidence]:
    """The first of the same shuffle as `roslin eval --samples` has, bad answers among them."""
    own = {judged.number: judged for judged in report.judged}
    others = {judged.number: judged for judged in base.judged} if base else {}
    picked = [number for number in shuffled([report], seed) if number in own][:SAMPLES]
    return [
        SampleEvidence(
            instruction=shortened(own[number].record.instruction),
            context=shortened(own[number].record.context),
            response=shortened(own[number].record.response),
            own=_answer(own, number),
            base=_answer(others, number) if base else None,
        )
        for number in picked
    ]


def _answer(judged: Mapping[int, Judged], number: int) -> SampleAnswer:
    found = judged.get(number)
    if found is None:
        return SampleAnswer(answer=None, faults=[])
    return SampleAnswer(answer=shortened(found.answer), faults=list(found.faults))
