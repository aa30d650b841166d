"""The card's sections on the licence, and on those who must be named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roslin.publish.card.gaps import gaps
from roslin.publish.licences import effect_of
from roslin.publish.markdown import code, plain
from roslin.publish.sections import without_marks

if TYPE_CHECKING:
    from roslin.publish.card.facts import CardFacts


def licence(facts: CardFacts) -> str:
    """The section: what the licence is, where that comes from, and what limits the model's use."""
    parts = ["## Licence", _licence(facts)]
    if facts.warnings:
        lines = [f"> - {plain(_sentence(warning))}" for warning in facts.warnings]
        parts.append("\n".join(["> **Before you use it:**", ">", *lines]))
    parts.append("This lists what is recorded; it is no legal advice.")
    return "\n\n".join(parts)


def _licence(facts: CardFacts) -> str:
    if facts.licence is None:
        return f"{gaps(facts)['licence']} {_why_open(facts)}".strip()
    asks = effect_of(facts.licence)
    told = f"{code(facts.licence)}, which {asks.asks}"
    if facts.evidence.stated.licence:
        return f"{told}. Stated by its owner{_against(facts)}."
    if facts.header_licence:
        return f"{told}. Stated in the metadata that stood here before."
    if any(material.licence is None for material in facts.materials):
        return f"{told}. The base asks for it; what the records ask for is not recorded."
    return f"{told}. It follows from the licences of what the model was made from."


def _against(facts: CardFacts) -> str:
    follows = facts.licence_that_follows
    if facts.materials and follows != facts.licence:
        return f"; from what is recorded of its materials, {code(follows) if follows else 'none'} follows"
    return ""


def _why_open(facts: CardFacts) -> str:
    if not facts.materials:
        return ""
    stated = ", ".join(
        f"{material.what} {code(material.name)}: {code(material.licence) if material.licence else 'not recorded'}"
        for material in facts.materials
    )
    return f"It does not follow from what the model was made from ({stated})."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def attribution(facts: CardFacts) -> str:
    """Those who must be named wherever the weights go; nothing where nobody must."""
    return f"## Attribution\n\n{without_marks(facts.files.notice)}" if facts.files.notice else ""
