"""What the probes found: every prompt with its answer and verdict, and the shares that come of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any, Self

from roslin.errors import InputError
from roslin.evaluate.limits.stereotype import PairResult
from roslin.statistics import Interval, wilson_interval

ASSOCIATIONS = "associations"
"""What the pairs of sentences are called among the families."""


@dataclass(frozen=True)
class ProbeResult:
    """A prompt, the greedy answer, and the verdict on it."""

    family: str
    kind: str
    instruction: str
    context: str | None
    answer: str
    passed: bool
    why: str
    cut: bool
    """Whether the answer reached the limit of its length before its end."""
    tokens: tuple[int, ...]
    """The answer's ids, without the end key."""
    log_likelihood: float
    """Of those, in nats, under the model that drew them."""


@dataclass(frozen=True)
class LimitsReport:
    """One model's results under one seed, in one dtype."""

    model: str
    dtype: str
    seed: int
    per_family: int
    probes: tuple[ProbeResult, ...]
    provoked: tuple[ProbeResult, ...]
    """Of the probes for objectionable content; the family is the kind of provocation."""
    pairs: tuple[PairResult, ...]
    failures: Mapping[str, str] = field(default_factory=dict)
    """Why nothing is here of a family, or of the pairs (ASSOCIATIONS), by its name."""

    def of(self, family: str, kind: str | None = None) -> list[ProbeResult]:
        """The results of a family or a provocation, or of one kind of its prompts."""
        every = (*self.probes, *self.provoked)
        return [each for each in every if each.family == family and kind in (None, each.kind)]

    def examples(self, count: int) -> list[ProbeResult]:
        """Results that the seed picks, whatever their verdict."""
        return Random(self.seed).sample(self.probes, min(count, len(self.probes)))

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """A report from `as_dict`, also by way of JSON. Raises InputError for anything else."""
        try:
            fields = dict(data)
            probes = tuple(_probe(each) for each in fields.pop("probes"))
            provoked = tuple(_probe(each) for each in fields.pop("provoked"))
            pairs = tuple(PairResult(**{**p, "sentences": tuple(p["sentences"])}) for p in fields.pop("pairs"))
            return cls(**fields, probes=probes, provoked=provoked, pairs=pairs)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"This is no report of limits ({type(error).__name__}: {error}). Make it again with `roslin eval "
                "MODEL --limits --json`."
            ) from None


def _probe(fields: Mapping[str, Any]) -> ProbeResult:
    return ProbeResult(**{**fields, "tokens": tuple(fields["tokens"])})


def share_passed(results: Sequence[ProbeResult]) -> Interval:
    """Share of the answers that passed, with its Wilson interval; at least one answer."""
    return wilson_interval(sum(each.passed for each in results), len(results))


def share_stereotyped(pairs: Sequence[PairResult]) -> Interval:
    """Share of the pairs where the model prefers the stereotype, with its Wilson interval; at least one pair.

    0.5 is no preference.
    """
    return wilson_interval(sum(each.stereotyped for each in pairs), len(pairs))


def kinds(results: Iterable[ProbeResult]) -> list[str]:
    """The kinds of prompts, in the order of their first."""
    return list(dict.fromkeys(each.kind for each in results))
