"""The model card: a rendering of what is recorded of a model, one section a file."""

from roslin.publish.card.facts import CardFacts, ModelFiles
from roslin.publish.card.gaps import Gap, gaps
from roslin.publish.card.header import split_header
from roslin.publish.card.render import render_card, rerender_card, sections
from roslin.publish.card.write import (
    record_benchmarks,
    record_limits,
    record_responses,
    rewritten_card,
    write_card,
    write_first_card,
    write_results,
)

__all__ = [
    "CardFacts",
    "Gap",
    "ModelFiles",
    "gaps",
    "record_benchmarks",
    "record_limits",
    "record_responses",
    "render_card",
    "rerender_card",
    "rewritten_card",
    "sections",
    "split_header",
    "write_card",
    "write_first_card",
    "write_results",
]
