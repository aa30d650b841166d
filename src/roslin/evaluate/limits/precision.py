"""One model in two precisions on the same probes: what a narrower dtype changes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from roslin.answer import Roslin
from roslin.engine import ScoreRow, score
from roslin.errors import InputError
from roslin.evaluate.limits.report import LimitsReport, ProbeResult
from roslin.statistics import Interval, Tally, sign_flip_p, wilson_interval


@dataclass(frozen=True)
class FamilyChange:
    """How many of a family's probes pass in both precisions, in one of them only, or in none."""

    family: str
    both: int
    only_reference: int
    only_other: int
    neither: int


@dataclass(frozen=True)
class PrecisionReport:
    """A model in another dtype against itself in the reference's."""

    model: str
    reference: str
    other: str
    identical: int
    """Greedy answers that are the same, token for token."""
    answers: int
    changes: tuple[FamilyChange, ...]
    scored: int
    """Answers of the reference that have tokens, over which the next two go."""
    drift: float
    """Mean over these answers of |change of log-likelihood| a token, in nats."""
    greatest_drift: float
    """The greatest of them."""

    @property
    def share_identical(self) -> Interval:
        """Share of identical answers, with its Wilson interval."""
        return wilson_interval(self.identical, self.answers)

    @property
    def lost(self) -> int:
        """Probes that pass in the reference only."""
        return sum(change.only_reference for change in self.changes)

    @property
    def won(self) -> int:
        """Probes that pass in the other dtype only."""
        return sum(change.only_other for change in self.changes)

    @property
    def p_value(self) -> float:
        """Of no difference: McNemar's exact test, two-sided, mid-p, over the probes that pass in one dtype only."""
        if self.lost == self.won == 0:
            return 1.0
        outcomes = [1] * self.lost + [0] * self.won
        alone = [str(number) for number in range(len(outcomes))]
        return sign_flip_p(Tally.of_outcomes(alone, outcomes, [1 - outcome for outcome in outcomes]))

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """A report from `as_dict`, also by way of JSON. Raises InputError for anything else."""
        try:
            return cls(**{**data, "changes": tuple(FamilyChange(**change) for change in data["changes"])})
        except (KeyError, TypeError) as error:
            raise InputError(f"This is no report on precisions ({type(error).__name__}: {error}).") from None


def compare_precisions(reference: LimitsReport, other: LimitsReport, model: Roslin) -> PrecisionReport:
    """Compare two reports on the same probes; `model` is the one that gave `other`, still loaded.

    It scores the reference's answers, for the change of their log-likelihood. A family that failed in either report is
    left out. Raises InputError when the reports are of different probes, and what scoring raises.
    """
    failed = {*reference.failures, *other.failures}
    ours, others = ([each for each in report.probes if each.family not in failed] for report in (reference, other))
    pairs = list(zip(ours, others, strict=False))
    same = all((a.instruction, a.context) == (b.instruction, b.context) for a, b in pairs)
    if not same or len(ours) != len(others) or not pairs:
        raise InputError(
            "The two reports are of different probes: run both with the same seed, number a family and version."
        )
    drifts = _drifts(ours, model)
    return PrecisionReport(
        model=reference.model,
        reference=reference.dtype,
        other=other.dtype,
        identical=sum(a.tokens == b.tokens for a, b in pairs),
        answers=len(pairs),
        changes=tuple(_change(name, pairs) for name in dict.fromkeys(a.family for a, _ in pairs)),
        scored=len(drifts),
        drift=math.fsum(drifts) / len(drifts) if drifts else 0.0,
        greatest_drift=max(drifts, default=0.0),
    )


def _change(family: str, pairs: Sequence[tuple[ProbeResult, ProbeResult]]) -> FamilyChange:
    passed = [(a.passed, b.passed) for a, b in pairs if a.family == family]
    both, only_reference, only_other, neither = (
        passed.count(verdicts) for verdicts in ((True, True), (True, False), (False, True), (False, False))
    )
    return FamilyChange(family, both, only_reference, only_other, neither)


def _drifts(probes: Sequence[ProbeResult], model: Roslin) -> list[float]:
    """For each answer that has tokens: |change of its log-likelihood| a token under `model`."""
    answered = [probe for probe in probes if probe.tokens]
    prompts = [model.prompts.ids(probe.instruction, probe.context) for probe in answered]
    rows = [ScoreRow([*ids, *probe.tokens], len(ids)) for ids, probe in zip(prompts, answered, strict=True)]
    scored = score(model.decoder, rows)
    return [
        abs(sum(logprobs) - probe.log_likelihood) / len(probe.tokens)
        for logprobs, probe in zip(scored, answered, strict=True)
    ]
