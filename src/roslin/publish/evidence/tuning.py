"""What a tuning run leaves behind about itself: base, records, recipe, course, machine, and held-out loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from roslin.publish.evidence.part import Part, Range
from roslin.publish.loss import LossComparison

if TYPE_CHECKING:
    from collections.abc import Mapping


class BaseEvidence(Part):
    """What was tuned."""

    words: str
    """What to call it."""
    hub_name: str | None
    revision: str | None
    fingerprint: str | None
    """Hash of its weights, configuration and tokenizer, as `roslin.model.fingerprint` makes it."""
    licence: str | None
    """As the hub spells it; None where it is not known."""


class SourceEvidence(Part):
    """A file of records by its name alone, or a dataset of the hub."""

    name: str
    sha256: str | None
    licence: str | None
    """As the hub spells it; None where it is not known."""


class CheckEvidence(Part):
    """What checking the records found: of every file that was given, before held-out ones were taken out."""

    records: int = Field(ge=0)
    findings: dict[str, int]
    """By the codes of `roslin records check`; a code that is not here was not found."""
    private: dict[str, int]
    """Records that hold each kind of personal or secret matter."""
    held_out_compared: bool
    """Whether there was a file of held-out records to look for leaks from."""


class RecordsEvidence(Part):
    """What a model was tuned on, and what it was measured on."""

    sources: list[SourceEvidence]
    train: int = Field(ge=0)
    train_sha256: str | None
    by_category: dict[str, int]
    held_out: int = Field(ge=0)
    dropped: int = Field(ge=0)
    """Records that reached max_length."""
    max_length: int
    check: CheckEvidence | None


class CourseEvidence(Part):
    """How tuning went, and on what."""

    method: str
    """What was trained, in words."""
    recipe: str
    """The whole recipe as YAML, its paths cut to names."""
    updates: int
    """Behind the weights that were kept."""
    epochs: float
    tokens: int
    """That went through the model in the whole run."""
    seconds: float
    """Of stepping, in the whole run."""
    hardware: str
    gpus: list[str]
    """The names of the GPUs that tuned, one each; none on a CPU."""
    versions: dict[str, str]


class ComparisonEvidence(Part):
    """A `LossComparison` as plain values."""

    records: int = Field(ge=1)
    before: Range
    after: Range
    change: Range

    @classmethod
    def of(cls, found: LossComparison) -> ComparisonEvidence:
        """The same as plain values."""
        ranges = {name: Range.of(getattr(found, name)) for name in ("before", "after", "change")}
        return cls(records=found.records, **ranges)

    @property
    def comparison(self) -> LossComparison:
        """The comparison."""
        return LossComparison(self.records, self.before.interval, self.after.interval, self.change.interval)


class LossEvidence(Part):
    """Held-out loss of base and tuned model."""

    whole: ComparisonEvidence
    """The end key counted."""
    without_end: ComparisonEvidence
    by_category: dict[str, ComparisonEvidence]
    chosen_on: str
    """Which records decided when tuning stopped, in words."""

    @classmethod
    def of(
        cls, whole: LossComparison, without_end: LossComparison, parts: Mapping[str, LossComparison], chosen_on: str
    ) -> LossEvidence:
        """The same as plain values."""
        return cls(
            whole=ComparisonEvidence.of(whole),
            without_end=ComparisonEvidence.of(without_end),
            by_category={name: ComparisonEvidence.of(part) for name, part in parts.items()},
            chosen_on=chosen_on,
        )


class AdapterEvidence(Part):
    """What PEFT must be told to put an adapter beside its base."""

    base: str
    """The base's name on the hub, or a path to stand for it."""
    revision: str | None
    rows: int | None
    """What the base's embedding must be resized to; None where it has rows enough."""
    rope_scaling: str | None
    """How the base's positions were stretched, which the adapter's files do not say."""


class TuningEvidence(Part):
    """All that a run says of the model that it wrote."""

    fingerprint: str | None
    """Of the weights, configuration and tokenizer that it wrote."""
    name: str
    """Of the run, not a path."""
    parameters: int
    languages: list[str]
    base: BaseEvidence
    records: RecordsEvidence
    course: CourseEvidence
    loss: LossEvidence
    adapter: AdapterEvidence | None = None
    """Where it is an adapter alone."""
