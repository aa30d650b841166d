"""What a card has no evidence for, and which command makes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from roslin.publish.energy import energy_of
from roslin.publish.markdown import code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from roslin.publish.card.facts import CardFacts


@dataclass(frozen=True)
class Gap:
    """One thing that is not known."""

    what: str
    """A sentence without its full stop; begins with `Not recorded` or `Not measured`."""
    command: str | None
    """What makes it known; None where nothing can any more."""

    def __str__(self) -> str:
        """As the card says it."""
        if self.command is None:
            return f"*{self.what}.*"
        how = "Measured by" if self.what.startswith("Not measured") else "Stated by"
        return f"*{self.what}.* {how} {code(self.command)}."


def gaps(facts: CardFacts) -> dict[str, Gap]:
    """Every gap, by what it is of."""
    return dict(_gaps(facts))


def _gaps(facts: CardFacts) -> Iterator[tuple[str, Gap]]:
    evidence = facts.evidence
    if evidence.stated.owner is None:
        yield "owner", Gap("Not recorded: who owns the model", "roslin card MODEL --owner NAME")
    if facts.licence is None:
        yield "licence", Gap("Not recorded: the licence of the model", "roslin card MODEL --license LICENCE")
    if evidence.limits is None:
        yield "limits", Gap("Not measured: what the model cannot do", "roslin eval MODEL --limits --card")
    yield from _of_benchmarks(facts)
    if evidence.responses is None:
        against = " --against BASE" if evidence.tuning else ""
        yield (
            "responses",
            Gap(
                "Not measured: the answers to held-out records",
                f"roslin eval MODEL --records RECORDS{against} --card",
            ),
        )
    yield from _of_tuning(facts)


def _of_benchmarks(facts: CardFacts) -> Iterator[tuple[str, Gap]]:
    found = facts.evidence.benchmarks
    if not found:
        yield "benchmarks", Gap("Not measured: the benchmarks of Dolly's card", "roslin eval MODEL --card")
        return
    if facts.evidence.tuning and not any(each.base for each in found):
        yield (
            "base benchmarks",
            Gap("Not measured by Roslin: the same of the base", "roslin eval BASE && roslin card MODEL"),
        )
    if facts.evidence.tuning and not any(each.contamination for each in found):
        yield (
            "contamination",
            Gap(
                "Not measured: which questions stand in the records that it was tuned on",
                "roslin eval MODEL --trained-on RECORDS --card",
            ),
        )


def _of_tuning(facts: CardFacts) -> Iterator[tuple[str, Gap]]:
    tuning = facts.evidence.tuning
    if tuning is None:
        yield "tuning", Gap("Not recorded: how the model was made, and from what", None)
        yield "dataset", Gap("Not recorded: which text and which records the model was made from", None)
        return
    if tuning.records.check is None:
        yield "check", Gap("Not recorded: what a check of the records found", None)
    if energy_of(tuning.course.gpus, tuning.course.seconds) is None:
        yield (
            "energy",
            Gap("Not estimated: the energy, as the power of this hardware is not known", None),
        )
