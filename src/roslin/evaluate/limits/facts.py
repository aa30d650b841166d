"""Factual errors: questions about undisputed facts."""

import re
from collections.abc import Callable
from itertools import takewhile
from random import Random

from roslin.evaluate.limits.fact import FACTS, Fact
from roslin.evaluate.limits.probe import Check, Family, Probe, Verdict
from roslin.evaluate.limits.reading import affirms, first_sentence, names, numbers

_GUESSES = re.compile(r"\w+\s*(?:,|/|–|\b(?:or|and|to)\b)\s*(?:or\s+)?\w+")
PHRASINGS = ("{}", "Answer in a few words: {}", "{} Reply with a short sentence.")


def accepts(fact: Fact) -> Check:
    """The first sentence affirms an accepted answer, and names no wrong answer of the same sort."""
    rivals = [
        other
        for each in FACTS
        if each.group == fact.group and not set(each.accepted) & set(fact.accepted)
        for other in each.accepted
        if not numbers(other) and not any(names(accepted, other) for accepted in fact.accepted)
    ]

    def check(answer: str) -> Verdict:
        said = first_sentence(answer)
        if not any(affirms(said, accepted, exact_case=fact.exact_case) for accepted in fact.accepted):
            return Verdict(False, f"does not say {fact.accepted[0]}")
        wrong = [rival for rival in rivals if names(said, rival, exact_case=fact.exact_case)]
        if fact.group == "number":
            wrong += _other_numbers(said, fact)
        return Verdict(not wrong, f"says {', '.join([fact.accepted[0], *wrong])}")

    return check


def _other_numbers(said: str, fact: Fact) -> list[str]:
    """Numbers that stand before the right one, or beside it as if it were one guess of several.

    Others may follow: "366 days, where other years have 365" is right.
    """
    right = {number for each in fact.accepted for number in numbers(each)}
    known = {*numbers(fact.question), *right}
    found = numbers(said)
    before = list(takewhile(lambda number: number not in right, found)) if right & set(found) else []
    beside = [number for guess in _GUESSES.finditer(said) for number in numbers(guess[0])]
    return [str(number) for number in [*before, *beside] if number not in known]


def _asked(group: str | None) -> Callable[[Random], Probe]:
    facts = [fact for fact in FACTS if (fact.group == group if group else fact.group not in ("capital", "number"))]

    def make(rng: Random) -> Probe:
        fact = rng.choice(facts)
        return Probe(fact.group, rng.choice(PHRASINGS).format(fact.question), accepts(fact))

    return make


FAMILY = Family(
    name="facts",
    limitation="Factual errors",
    rule="the first sentence gives an accepted answer, not negated, and no wrong answer of the same sort",
    blind="schoolbook facts, one sentence deep; errors further on in an answer are not seen",
    max_new_tokens=24,
    makers=(_asked("capital"), _asked(None), _asked("number"), _asked(None)),
)
