"""All that a card is rendered from: what the folder's files show, and what is recorded of the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from roslin.errors import RoslinError
from roslin.integrations.pipeline_files import PIPELINE_FILES
from roslin.model import load_config, text_source
from roslin.model.adapter import is_adapter
from roslin.publish.evidence import Evidence
from roslin.publish.licences import Material, combined, warnings_of
from roslin.tokens import Tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from roslin.model import ModelConfig

NOTICE = "NOTICE.md"
"""Attributions in a base's folder; they travel into the folder and the card of every model made from it."""
MODELSCOPE_FILE = "configuration.json"


@dataclass(frozen=True)
class ModelFiles:
    """What a folder's own files show."""

    config: ModelConfig | None = None
    """None where it cannot be read: an adapter's base may be elsewhere."""
    has_keys: bool = False
    """Whether its tokenizer has Dolly's keys."""
    pipeline: bool = False
    """Whether transformers finds the instruction pipeline in it."""
    modelscope: bool = False
    adapter: bool = False
    """Whether it is an adapter that needs its base."""
    notice: str = ""

    @classmethod
    def of(cls, folder: Path) -> ModelFiles:
        """What the files of this folder show. Raises InputError for a notice that is no text."""
        notice = folder / NOTICE
        return cls(
            config=_config(folder),
            has_keys=_has_keys(folder),
            pipeline=(folder / PIPELINE_FILES[0]).is_file(),
            modelscope=(folder / MODELSCOPE_FILE).is_file(),
            adapter=is_adapter(folder),
            notice=notice.read_text(encoding="utf-8", errors="replace").strip() if notice.is_file() else "",
        )


def _config(folder: Path) -> ModelConfig | None:
    try:
        return load_config(folder)
    except RoslinError:
        return None


def _has_keys(folder: Path) -> bool:
    try:
        return Tokenizer.load(text_source(folder)).has_keys
    except RoslinError:
        return False


@dataclass(frozen=True)
class CardFacts:
    """All that a card states. Nothing in a card is written that is not here."""

    name: str
    """Title: not a path."""
    files: ModelFiles = field(default_factory=ModelFiles)
    evidence: Evidence = field(default_factory=Evidence)
    """Measurements of these very weights only."""
    as_tuned: bool | None = True
    """Whether the weights are those that the run of the evidence wrote; None where that cannot be told."""
    header_licence: str | None = None
    """What the metadata that stood here says, of a model that Roslin did not tune."""

    @property
    def parameters(self) -> int | None:
        """How many numbers the weights hold."""
        if self.files.config:
            return self.files.config.parameter_count
        return self.evidence.tuning.parameters if self.evidence.tuning else None

    @cached_property
    def materials(self) -> list[Material]:
        """What the model is made from, as far as that is recorded."""
        tuning = self.evidence.tuning
        if tuning is None:
            return []
        base = Material("base", tuning.base.words, tuning.base.licence)
        return [base, *(Material("records", source.name, source.licence) for source in tuning.records.sources)]

    @property
    def licence(self) -> str | None:
        """That which its owner states, or else the one that follows from what it is made from."""
        return self.evidence.stated.licence or self.header_licence or self.licence_that_follows

    @property
    def licence_that_follows(self) -> str | None:
        """From what it is made from; None where somebody must choose."""
        if not self.materials:
            return None
        base, *records = self.materials
        return combined(base.licence, [each.licence for each in records])

    @property
    def warnings(self) -> list[str]:
        """What must be said of licences."""
        found = warnings_of(self.materials or [Material("model", self.name, self.licence)])
        if self.licence is None:
            found.append("the licence of the model is not stated: choose one with --license")
        return found
