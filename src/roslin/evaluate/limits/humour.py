"""A sense of humour: whether an answer has the form of a joke. Whether it is funny, no program here can say."""

import re
from collections.abc import Callable
from random import Random

from roslin.evaluate.limits.probe import Family, Probe, Verdict, judged
from roslin.evaluate.limits.reading import lines, names, sentences, words
from roslin.evaluate.limits.rules import substance_faults
from roslin.evaluate.limits.style import lines_faults, names_subject

SUBJECTS = ("a dentist", "a cow", "a computer", "a snail", "a baker", "a ghost", "a bicycle", "a potato", "a teacher",
            "a fish", "a clock", "a penguin", "a sandwich", "a vampire", "a gardener", "a camel")  # fmt: skip
LONGEST = 80
"""Words of a joke."""

Faults = Callable[[str], list[str]]


def two_parts(answer: str) -> list[str]:
    """A joke sets something up and ends it: two sentences or lines at least."""
    parts = [part for part in sentences(answer) if not names(part, "joke")]  # "Here is a joke:" is no part of one
    return [] if len(parts) >= 2 else [f"{len(parts)} parts"]


def question_and_answer(answer: str) -> list[str]:
    """A riddle asks, and then answers."""
    found = re.search(r"\w\s*\?(?P<rest>.*)", answer, re.DOTALL)
    if not found:
        return ["asks nothing"]
    return [] if words(found["rest"]) else ["does not answer its question"]


def knocks(answer: str) -> list[str]:
    """A knock-knock joke has its two fixed lines and three more."""
    plain = " ".join(words(answer))
    wanted = ("knock knock", "who's there", " who")
    faults = [f'no "{words}"' for words in wanted[:2] if words not in plain]
    if len(re.findall(r"\bwho\b", plain)) < 2:
        faults.append('no "… who?"')
    return faults + ([] if len(sentences(answer)) >= 5 else [f"{len(sentences(answer))} lines, not 5"])


def five_lines(answer: str) -> list[str]:
    """A limerick has five lines."""
    return lines_faults(lines(answer), 5)


FORMS: tuple[tuple[str, str, Faults], ...] = (
    ("joke", "Tell me a short joke about {}.", two_parts),
    ("riddle", "Tell me a funny riddle about {}, with its answer.", question_and_answer),
    ("knock-knock joke", "Tell me a knock-knock joke about {}.", knocks),
    ("limerick", "Write a funny limerick about {}.", five_lines),
)


def _asked(kind: str, phrasing: str, faults: Faults) -> Callable[[Random], Probe]:
    def make(rng: Random) -> Probe:
        subject = rng.choice(SUBJECTS)
        instruction = phrasing.format(subject)

        def check(answer: str) -> Verdict:
            found = substance_faults(answer, instruction) + faults(answer)
            if len(words(answer)) > LONGEST:
                found.append(f"{len(words(answer))} words")
            if not names_subject(answer, subject):
                found.append(f"does not name {subject}")
            return judged(found, f"has the form of a {kind}")

        return Probe(kind, instruction, check)

    return make


FAMILY = Family(
    name="humour",
    limitation="Having a sense of humour",
    rule=f"the form of the joke asked for (parts, lines), subject, no echo, no circles, ends within {LONGEST} words",
    blind="measures form, not wit: a dull story in two sentences passes",
    max_new_tokens=80,
    whole=True,
    makers=tuple(_asked(*form) for form in FORMS),
)
