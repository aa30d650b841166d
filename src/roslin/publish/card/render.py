"""The whole card: metadata, and the sections in the order of Dolly's card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from roslin.errors import InputError
from roslin.publish.card.benchmarks import HEADING as BENCHMARKS
from roslin.publish.card.benchmarks import benchmarks_markdown
from roslin.publish.card.dataset import dataset
from roslin.publish.card.gaps import gaps
from roslin.publish.card.header import header_text, merged, metadata, split_header
from roslin.publish.card.held_out import loss, responses
from roslin.publish.card.licence import attribution, licence
from roslin.publish.card.limits import GENERAL, limits_markdown
from roslin.publish.card.limits import HEADING as LIMITS
from roslin.publish.card.overview import overview
from roslin.publish.card.summary import summary
from roslin.publish.card.training import training
from roslin.publish.card.usage import usage
from roslin.publish.sections import CARD, find_section, require_unedited, with_sections

if TYPE_CHECKING:
    from roslin.publish.card.facts import CardFacts

FIRST = "summary"
"""A card that has this section is one that Roslin wrote."""


def sections(facts: CardFacts) -> dict[str, str]:
    """Every section by its name, in order; one that has nothing to say is empty."""
    return {
        FIRST: summary(facts),
        "overview": overview(facts),
        "usage": usage(facts),
        "limits": _limits(facts),
        "dataset": dataset(facts),
        "benchmarks": _benchmarks(facts),
        "loss": loss(facts),
        "responses": responses(facts),
        "training": training(facts),
        "licence": licence(facts),
        "attribution": attribution(facts),
    }


def _limits(facts: CardFacts) -> str:
    if facts.evidence.limits:
        return limits_markdown(facts.evidence.limits)
    return f"{LIMITS}\n\n{GENERAL}\n\n{gaps(facts)['limits']}"


def _benchmarks(facts: CardFacts) -> str:
    missing = gaps(facts)
    if not facts.evidence.benchmarks:
        return f"{BENCHMARKS}\n\n{missing['benchmarks']}"
    named = [str(missing[name]) for name in ("base benchmarks", "contamination") if name in missing]
    return benchmarks_markdown(facts.evidence.benchmarks, named)


def render_card(facts: CardFacts) -> str:
    """A new card as Markdown."""
    rest = with_sections(Path(CARD), "", sections(facts))
    return f"{header_text(metadata(facts))}\n{rest}"


def rerender_card(facts: CardFacts, card: Path, text: str, *, force: bool = False) -> str:
    """The card again: what stands in its sections is written anew, and all else that a person wrote stays.

    Raises InputError for a card that Roslin did not write, and for sections that were edited; `force` writes those
    anew as well, and such a card whole, but for the metadata that a person added.
    """
    header, rest = split_header(card, text)
    found = sections(facts)
    ours = find_section(card, rest, FIRST) is not None
    if not ours and rest.strip() and not force:
        raise InputError(
            f"{card}: there is a card that Roslin did not write. --out FILE writes Roslin's elsewhere; --force writes "
            "it in the place of this one."
        )
    if ours and not force:
        require_unedited(card, rest, list(found), otherwise=", or give --force to lose them")
    rest = with_sections(card, rest if ours else "", found)
    gap = "" if rest.startswith(("\n", "\r\n")) else "\n"
    return header_text(merged(header, metadata(facts))) + gap + rest
