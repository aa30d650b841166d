"""The families of probes: one for each limitation that Dolly's card names, in the card's order."""

from roslin.evaluate.limits import (
    arithmetic,
    dates,
    facts,
    grounding,
    humour,
    letters,
    lists,
    open_questions,
    programming,
    style,
    syntax,
)
from roslin.evaluate.limits.probe import Family

FAMILIES: tuple[Family, ...] = (
    syntax.FAMILY,
    programming.FAMILY,
    arithmetic.FAMILY,
    facts.FAMILY,
    dates.FAMILY,
    open_questions.FAMILY,
    grounding.FAMILY,
    lists.FAMILY,
    style.FAMILY,
    humour.FAMILY,
    letters.FAMILY,
)
