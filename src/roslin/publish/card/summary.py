"""What the model is, and whose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roslin.publish.card.gaps import gaps
from roslin.publish.markdown import code, plain

if TYPE_CHECKING:
    from roslin.publish.card.facts import CardFacts

SMALL = 500_000_000
"""Below this many parameters a card says that the model learns form and not facts."""


def summary(facts: CardFacts) -> str:
    """Title, summary and owner."""
    parts = [f"# {plain(facts.name)}", "## Summary", _what(facts)]
    if facts.evidence.tuning and facts.parameters and facts.parameters < SMALL:
        parts.append(
            "A model this small learns the *form* of an answer: to respond to the instruction, and to stop. It does "
            "not learn facts of the world; treat what it states as invented."
        )
    return "\n\n".join([*parts, _owner(facts)])


def _what(facts: CardFacts) -> str:
    tuning, count = facts.evidence.tuning, facts.parameters
    size = f" of {in_millions(count)} parameters" if count else ""
    if tuning is None:
        return (
            f"A causal language model{size}. {gaps(facts)['tuning']} This card says only what "
            "its files show, and what has been measured."
        )
    records = f"{tuning.records.train:,} instruction records with Roslin"
    made = f"made by tuning {code(tuning.base.words)} on {records}"
    if facts.files.adapter:
        made = f"made of {code(tuning.base.words)} and this adapter, which was tuned on {records}"
    prompt = "It expects Dolly's prompt. " if facts.files.has_keys else ""
    return (
        f"An instruction-following language model{size}, {made}. {prompt}How well it follows "
        "instructions stands below, as far as it was measured; what was not is named."
    )


def _owner(facts: CardFacts) -> str:
    owner = facts.evidence.stated.owner
    return f"**Owner:** {plain(owner) if owner else gaps(facts)['owner']}"


def in_millions(count: int) -> str:
    """A number of parameters in words."""
    return f"{count / 1e9:.2f} billion" if count >= 1e9 else f"{count / 1e6:.1f} million"
