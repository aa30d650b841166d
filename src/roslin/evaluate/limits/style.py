"""Stylistic mimicry: only what of a style a program can count, never how well it is done."""

import re
from collections.abc import Callable, Sequence
from random import Random

from roslin.evaluate.limits.probe import Family, Probe, Verdict, judged
from roslin.evaluate.limits.reading import lines, names, words
from roslin.evaluate.limits.rules import substance_faults

SUBJECTS = ("the rain", "a lighthouse", "a cat", "the kitchen", "a train", "winter", "the harvest", "a bridge", "tea")
OLD = ("thee", "thou", "thy", "thine", "hath", "doth", "hast", "dost", "o'er", "'tis", "tis", "whence", "ere",
       "wherefore", "prithee", "forsooth", "methinks", "shalt", "wilt")  # fmt: skip
SEA = ("arr", "arrr", "ahoy", "ye", "yer", "matey", "mateys", "aye", "avast", "landlubber", "booty", "ship", "scurvy",
       "plunder", "treasure", "me hearties", "sea", "rum")  # fmt: skip
FIRST_OR_THIRD = ("I", "me", "my", "he", "she", "his", "her")
_RHYME = re.compile(r"[aeiouy]+[^aeiouy]*$")

Faults = Callable[[str], list[str]]


def three_lines(answer: str) -> list[str]:
    """A haiku has three lines, short ones."""
    found = lines(answer)
    faults = lines_faults(found, 3)
    return faults + (["a line of more than 9 words"] if any(len(words(line)) > 9 for line in found) else [])


def lines_faults(found: Sequence[str], count: int) -> list[str]:
    """Why lines are not so many different ones."""
    faults = [] if len(found) == count else [f"{len(found)} lines, not {count}"]
    return faults + (["a line stands twice"] if len({" ".join(words(line)) for line in found}) < len(found) else [])


def rhymes(answer: str) -> list[str]:
    """A couplet has two lines that end on different words with the same letters from the last vowels on."""
    found = lines(answer)
    if len(found) != 2:
        return [f"{len(found)} lines, not 2"]
    one, two = (next(iter(words(line)[-1:]), "") for line in found)
    return [] if one != two and _ending(one) == _ending(two) != "" else [f'"{one}" and "{two}" do not rhyme']


def _ending(word: str) -> str:
    """Letters from the last vowels on; a silent e is no vowel (name, same)."""
    stem = re.sub(r"(?<=[^aeiouy])e$", "", word)
    found = _RHYME.search(stem)
    return found[0] if found else ""


def small_letters(answer: str) -> list[str]:
    """No capital letter."""
    return ["a capital letter"] if any(c.isupper() for c in answer) else []


def capitals(answer: str) -> list[str]:
    """No small letter."""
    return ["a small letter"] if any(c.islower() for c in answer) else []


def addresses_you(answer: str) -> list[str]:
    """Second person: "you" or "your", and neither first nor third person singular."""
    others = [word for word in FIRST_OR_THIRD if names(answer, word, exact_case=word == "I")]
    return ([] if names(answer, "you") or names(answer, "your") else ["no you"]) + [f"says {word}" for word in others]


def stops(answer: str) -> list[str]:
    """A telegram says STOP in place of full stops."""
    said = len(re.findall(r"\bSTOP\b", answer))
    return ([] if said >= 2 else [f"{said} times STOP"]) + (["a full stop"] if "." in answer else [])


def words_of(lexicon: Sequence[str]) -> Faults:
    """At least two words of those that mark a way of speaking."""

    def faults(answer: str) -> list[str]:
        found = [word for word in lexicon if names(answer, word)]
        return [] if len(found) >= 2 else [f"{len(found)} words of the style"]

    return faults


STYLES: tuple[tuple[str, str, Faults], ...] = (
    ("haiku", "Write a haiku about {}.", three_lines),
    ("couplet", "Write a rhyming couplet, two lines, about {}.", rhymes),
    ("lower case", "Write one short sentence about {} in lower case letters only.", small_letters),
    ("Shakespeare", "Write two short sentences about {} as Shakespeare would have put it.", words_of(OLD)),
    (
        "second person",
        "Describe {} in one sentence, in the second person, as if the reader were experiencing it.",
        addresses_you,
    ),
    ("telegram", "Announce news about {} as a telegram of ten words, with STOP in place of full stops.", stops),
    ("pirate", "Say two short sentences about {} as a pirate would.", words_of(SEA)),
    ("capitals", "Write a headline about {} in capital letters only.", capitals),
)


def _asked(kind: str, phrasing: str, faults: Faults) -> Callable[[Random], Probe]:
    def make(rng: Random) -> Probe:
        subject = rng.choice(SUBJECTS)
        instruction = phrasing.format(subject)

        def check(answer: str) -> Verdict:
            found = substance_faults(answer, instruction) + faults(answer)
            if len(words(answer)) < 3:
                found.append("fewer than 3 words")
            if not names_subject(answer, subject):
                found.append(f"does not name {subject}")
            return judged(found, f"has the marks of: {kind}")

        return Probe(kind, instruction, check)

    return make


def names_subject(answer: str, subject: str) -> bool:
    """Whether the noun of a subject, in the singular or the plural, stands in an answer."""
    noun = subject.rsplit(maxsplit=1)[-1]
    return names(answer, noun) or names(answer, f"{noun}s")


FAMILY = Family(
    name="style",
    limitation="Stylistic mimicry",
    rule="has the countable marks of the style (lines, rhyme, case, person, its words), names its subject, ends",
    blind="measures form, not style: syllables, metre and tone are not judged, and rhyme goes by spelling",
    max_new_tokens=48,
    whole=True,
    makers=tuple(_asked(*style) for style in STYLES),
)
