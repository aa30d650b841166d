"""The model's parts in a table: its shape, its base, what it was tuned on and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roslin.publish.card.gaps import gaps
from roslin.publish.card.summary import in_millions
from roslin.publish.markdown import code, in_cell, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from roslin.model import ModelConfig
    from roslin.publish.card.facts import CardFacts
    from roslin.publish.evidence import TuningEvidence


def overview(facts: CardFacts) -> str:
    """The section."""
    rows = [f"| {name} | {in_cell(value)} |" for name, value in _rows(facts)]
    table = "\n".join(["| | |", "|---|---|", *rows]) if rows else "Its files could not be read for this table."
    parts = ["## Model Overview", table]
    if facts.evidence.tuning and facts.as_tuned is None:
        parts.append(
            "Whether the weights in this folder are those that the run wrote could not be told when this card was "
            "made: the base was not at hand, or the run left no hash. Measurements are left out without it."
        )
    elif facts.evidence.tuning and not facts.as_tuned:
        parts.append(
            "The weights in this folder are not byte for byte those that the run wrote: they were exported or changed "
            "since. What is said of the run is said of the weights that it wrote."
        )
    return "\n\n".join(parts)


def _rows(facts: CardFacts) -> Iterator[tuple[str, str]]:
    if facts.parameters:
        yield "parameters", f"{in_millions(facts.parameters)} ({facts.parameters:,})"
    if facts.files.config:
        yield from _shape(facts.files.config)
    tuning = facts.evidence.tuning
    if tuning is None:
        yield "made from", str(gaps(facts)["tuning"])
        return
    yield from _base(tuning)
    yield "tuned on", f"{tuning.records.train:,} records, {tuning.records.held_out:,} more held out"
    yield "what was trained", plain(tuning.course.method)
    yield "held-out loss", f"{' → '.join(tuning.loss.whole.comparison.figures()[:2])} nats a token"


def _shape(config: ModelConfig) -> Iterator[tuple[str, str]]:
    yield "architecture", code(config.family)
    yield "shape", f"{config.layers} layers, {config.width:,} wide, {config.heads} heads"
    yield "positions", f"{config.positions:,} tokens, prompt and answer together"


def _base(tuning: TuningEvidence) -> Iterator[tuple[str, str]]:
    base = tuning.base
    revision = f", revision {code(base.revision)}" if base.revision else ""
    yield "base", code(base.words) + revision
    yield "hash of the base", code(base.fingerprint) if base.fingerprint else "not recorded"
    yield "licence of the base", code(base.licence) if base.licence else "not recorded"
