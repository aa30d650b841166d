"""The rules that several families judge by."""

import re
from collections.abc import Collection, Iterable
from fractions import Fraction

from roslin.evaluate.limits.probe import Check, Verdict, judged
from roslin.evaluate.limits.reading import echoes, first_sentence, named_in_order, numbers, repeats, words

Number = int | Fraction
MOST_WORDS = 10
"""Of a sentence around the one word that was asked for."""
_DENIAL = re.compile(r"\b(?:not|never|no|nor|neither|cannot)\b|n['’]t\b", re.IGNORECASE)


def only_names(right: str, candidates: Collection[str]) -> Check:
    """The first sentence names the right one of the candidates and no other, denies nothing, and is short.

    Prompts with this rule ask for one word; a sentence around it is let pass.
    """

    def check(answer: str) -> Verdict:
        said = first_sentence(answer)
        found = named_in_order(said, candidates)
        faults = [] if found == [right] else [f"names {_listed(found)}; right is {right}"]
        if _DENIAL.search(said):
            faults.append("denies something")
        if len(words(said)) > MOST_WORDS:
            faults.append(f"{len(words(said))} words")
        return judged(faults, f"names {right}")

    return check


def states_number(right: Number, stated: Iterable[Number], steps: Iterable[Number] = ()) -> Check:
    """Of the numbers that the question does not state, the last is the right one, and any others are steps to it.

    So a guess at several numbers fails, and so does an answer that goes on to other ones.
    """
    known, allowed = set(stated), {right, *steps}

    def check(answer: str) -> Verdict:
        new = [number for number in numbers(answer) if number == right or number not in known]
        if not new:
            return Verdict(False, f"states no number of its own; right is {right}")
        strays = [number for number in new if number not in allowed]
        faults = [f"states {_listed(map(str, strays))}"] if strays else []
        if new[-1] != right:
            faults.append(f"ends with {new[-1]}")
        return judged([f"{fault}; right is {right}" for fault in faults[:1]], f"states {right}")

    return check


def substance_faults(answer: str, prompt: str) -> list[str]:
    """Why an answer is none at all: empty, an echo of its prompt, or going round in circles."""
    if not answer.strip():
        return ["empty"]
    found = ["an echo of the prompt"] if echoes(answer, prompt) else []
    return found + (["goes round in circles"] if repeats(answer) else [])


def _listed(found: Iterable[str]) -> str:
    return ", ".join(found) or "none"
