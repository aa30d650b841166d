"""The card's section on how the model was tuned: records, course, machine, time, energy, recipe."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from roslin.publish.card.dataset import in_categories
from roslin.publish.card.gaps import gaps
from roslin.publish.energy import LEAST_SHARE, energy_of
from roslin.publish.markdown import code, fenced, plain

if TYPE_CHECKING:
    from roslin.publish.card.facts import CardFacts
    from roslin.publish.evidence import CourseEvidence, RecordsEvidence


def training(facts: CardFacts) -> str:
    """The section."""
    heading = "## How It Was Tuned"
    tuning = facts.evidence.tuning
    if tuning is None:
        return f"{heading}\n\n{gaps(facts)['tuning']}"
    course = tuning.course
    lines = [
        _records(tuning.records),
        f"{course.updates:,} updates are behind these weights ({course.epochs:.2f} epochs). The whole run took "
        f"{course.tokens:,} tokens through the model in {course.seconds:,.0f} s of stepping on "
        f"{plain(course.hardware)}.",
        _energy(course) or str(gaps(facts)["energy"]),
        f"{plain(course.method)}; loss on response tokens only, AdamW with fp32 master weights.",
        f"Versions: {', '.join(f'{name} {version}' for name, version in course.versions.items())}.",
    ]
    listed = "\n".join(f"- {line}" for line in lines)
    return f"{heading}\n\n{listed}\n\nThe recipe, its paths cut to names:\n\n{fenced(course.recipe, 'yaml')}"


def _records(records: RecordsEvidence) -> str:
    names = ", ".join(code(source.name) for source in records.sources)
    counts = in_categories(records.by_category)
    digest = f"; in order, their sha256 is {code(records.train_sha256)}" if records.train_sha256 else ""
    return f"Records: {names} ({counts}){digest}."


def _energy(course: CourseEvidence) -> str | None:
    found = energy_of(course.gpus, course.seconds)
    if found is None:
        return None
    kwh = f"{_kwh(found.least)} to {_kwh(found.most)} kWh"
    boards = "1 board" if len(course.gpus) == 1 else f"{len(course.gpus)} boards"
    return (
        f"Energy, an estimate and no measurement: {kwh}. That is the rated power "
        f"of {boards}, {found.watts:,} W, × {course.seconds:,.0f} s of stepping; a busy board draws between "
        f"{100 * LEAST_SHARE:.0f} % of it and all. The rest of the machine, cooling, loading and evaluations are not "
        "counted."
    )


def _kwh(value: float) -> str:
    """Two digits that count, however large or small, and no powers of ten."""
    return f"{float(f'{value:.2g}'):,.0f}" if value >= 10 else f"{Decimal(f'{value:.2g}'):f}"
