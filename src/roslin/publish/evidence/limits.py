"""What probes of a model's limits found, as counts and a few answers that the seed picks."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pydantic import Field

from roslin.evaluate.limits import (
    FAMILIES,
    PROVOCATIONS,
    FamilyChange,
    LimitsReport,
    PrecisionReport,
    ProbeResult,
    kinds,
)
from roslin.publish.evidence.part import Part
from roslin.publish.evidence.public import public_text, writable

if TYPE_CHECKING:
    from collections.abc import Sequence

EXAMPLES = 3
LONGEST_ANSWER = 500
"""Characters of a text that are kept."""


class Count(Part):
    """How many of some answers passed."""

    passed: int = Field(ge=0)
    of: int = Field(ge=0)

    @classmethod
    def among(cls, results: Sequence[ProbeResult]) -> Count:
        """Of results of probes."""
        return cls(passed=sum(result.passed for result in results), of=len(results))


class Example(Part):
    """A probe with its answer, both cut to LONGEST_ANSWER."""

    family: str
    passed: bool
    why: str
    instruction: str
    context: str | None
    answer: str


class Pairs(Part):
    """Sentences that differ only in a group: how often the stereotype was likelier."""

    stereotyped: int = Field(ge=0)
    of: int = Field(ge=1)
    dimensions: list[str]


class PrecisionEvidence(Part):
    """A `PrecisionReport` as plain values."""

    reference: str
    other: str
    identical: int
    answers: int
    lost: int
    won: int
    scored: int
    drift: float
    greatest_drift: float

    @property
    def report(self) -> PrecisionReport:
        """The report, its families added up."""
        change = FamilyChange("all", 0, self.lost, self.won, 0)
        return PrecisionReport(
            "", self.reference, self.other, self.identical, self.answers, (change,), self.scored, self.drift,
            self.greatest_drift,
        )  # fmt: skip


class LimitsEvidence(Part):
    """What a card says of the probes."""

    fingerprint: str | None
    """Of the weights that were probed."""
    dtype: str
    seed: int
    per_family: int
    families: dict[str, Count]
    """By the names of FAMILIES and PROVOCATIONS; one that failed has none."""
    hallucination: dict[str, Count]
    """By kind of prompt."""
    pairs: Pairs | None
    failures: dict[str, str]
    examples: list[Example]
    precision: PrecisionEvidence | None

    @classmethod
    def of(
        cls, report: LimitsReport, precision: PrecisionReport | None = None, fingerprint: str | None = None
    ) -> LimitsEvidence:
        """What of a report a card says."""
        asked = {family.name: report.of(family.name) for family in (*FAMILIES, *PROVOCATIONS)}
        by_kind = {kind: report.of("hallucination", kind) for kind in kinds(report.of("hallucination"))}
        return cls(
            fingerprint=fingerprint,
            dtype=report.dtype,
            seed=report.seed,
            per_family=report.per_family,
            families={name: Count.among(results) for name, results in asked.items() if results},
            hallucination={kind: Count.among(results) for kind, results in by_kind.items()},
            pairs=_pairs(report),
            failures={part: public_text(writable(reason)) for part, reason in report.failures.items()},
            examples=[_example(result) for result in report.examples(EXAMPLES)],
            precision=_precision(precision) if precision else None,
        )


def _pairs(report: LimitsReport) -> Pairs | None:
    if not report.pairs:
        return None
    dimensions = list(dict.fromkeys(pair.dimension for pair in report.pairs))
    return Pairs(
        stereotyped=sum(pair.stereotyped for pair in report.pairs), of=len(report.pairs), dimensions=dimensions
    )


def _example(result: ProbeResult) -> Example:
    return Example(
        family=result.family,
        passed=result.passed,
        why=writable(result.why),
        instruction=shortened(result.instruction),
        context=shortened(result.context) if result.context else None,
        answer=shortened(result.answer),
    )


def shortened(text: str, longest: int = LONGEST_ANSWER) -> str:
    """A text of that many characters at most, and a mark where some were left out."""
    whole = writable(text)
    return whole if len(whole) <= longest else f"{whole[:longest]} …"


def _precision(report: PrecisionReport) -> PrecisionEvidence:
    known = set(PrecisionEvidence.model_fields) - {"lost", "won"}
    values: dict[str, Any] = {name: value for name, value in asdict(report).items() if name in known}
    return PrecisionEvidence(**values, lost=report.lost, won=report.won)
