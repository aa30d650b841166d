"""What a program can read off an answer: its words, sentences, numbers, and which of several names it gives."""

import re
import unicodedata
from collections.abc import Iterable
from fractions import Fraction

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+")
_SENTENCE_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"'”’)]))\s+(?=[\"'“‘(]*[^\W\d_a-z])|\n+")
_NUMBER = re.compile(
    r"(?<![\w.])(?P<sign>(?<![\w)\]])[-−]|\bnegative\s+)?(?P<digits>\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?P<part>\.\d+)?"
)
_SMALL = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_SMALL_WORD = re.compile(rf"(?<!ty[ -])\b(?:{'|'.join(_SMALL)})\b", re.IGNORECASE)
_NO = re.compile(
    r"\b(?:not|never|no|nor|neither|isn['’]t|wasn['’]t|aren['’]t|instead of|rather than)\b[^.;,]{0,20}$", re.I
)

LONGEST_NUMBER = 100
"""Digits of a number that are read: Python refuses to, from 4,300 on, and no question here has half as many as this."""
ECHO = 0.6
"""From this share of an answer's word triples on that stand in the prompt, the answer is an echo of it."""
REPEATING = 0.5
"""Below this share of distinct word triples an answer goes round in circles."""


def words(text: str) -> list[str]:
    """The words and whole numbers of a text, in lower case."""
    return [word.replace("’", "'") for word in _WORD.findall(text.lower())]


def lines(text: str) -> list[str]:
    """The lines that are not blank, stripped."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def sentences(text: str) -> list[str]:
    """The text cut at line ends, and after a full stop, `!` or `?` that a capital letter follows."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part and part.strip()]


def first_sentence(text: str) -> str:
    """The first of its sentences that is no question (which may be the prompt's); empty if there is none."""
    return next((each for each in sentences(text) if not each.endswith("?")), "")


def names(text: str, phrase: str, *, exact_case: bool = False) -> bool:
    """Whether a phrase stands in a text as whole words."""
    return bool(_places(text, phrase, exact_case))


def affirms(text: str, phrase: str, *, exact_case: bool = False) -> bool:
    """Whether a phrase stands in a text as whole words at least once without a "not" close before it."""
    return any(not _NO.search(text[:place]) for place in _places(text, phrase, exact_case))


def named_in_order(text: str, phrases: Iterable[str]) -> list[str]:
    """Those of the phrases that stand in a text as whole words, by their first place."""
    found = [(places[0], phrase) for phrase in phrases if (places := _places(text, phrase, False))]
    return [phrase for _, phrase in sorted(found)]


def _places(text: str, phrase: str, exact_case: bool) -> list[int]:
    pattern = r"(?<!\w)(?<!\d[.,])" + re.escape(_bare(phrase)).replace(r"\ ", r"\s+") + r"(?!\w)(?![.,]\d)"
    return [match.start() for match in re.finditer(pattern, _bare(text), 0 if exact_case else re.IGNORECASE)]


def _bare(text: str) -> str:
    """The text without accents: Brasília is Brasilia."""
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))


def numbers(text: str) -> list[Fraction]:
    """The numbers written in digits (1,204 and -3.5 too), and those of two to twelve in words, in order.

    A minus right behind a word, a number or a bracket is no sign; a digit inside a word (H2O) does not count.
    """
    found = [(m.start(), _value(m)) for m in _NUMBER.finditer(text)]
    found += [(m.start(), Fraction(_SMALL.index(m[0].lower()) + 2)) for m in _SMALL_WORD.finditer(text)]
    return [value for _, value in sorted(found)]


def _value(match: re.Match[str]) -> Fraction:
    digits, part = match["digits"].replace(",", ""), match["part"] or ""
    value = Fraction(digits[:LONGEST_NUMBER] + part[:LONGEST_NUMBER])
    return -value if match["sign"] else value


def echoes(answer: str, prompt: str) -> bool:
    """Whether an answer mostly repeats its prompt: its words are a run of the prompt's, or ECHO of its triples are."""
    said, asked = words(answer), words(prompt)
    if f" {' '.join(said)} " in f" {' '.join(asked)} ":
        return True
    there = set(_triples(asked))
    mine = _triples(said)
    return bool(mine) and sum(triple in there for triple in mine) >= ECHO * len(mine)


def repeats(answer: str) -> bool:
    """Whether an answer goes round in circles: fewer than REPEATING of its word triples are distinct."""
    triples = _triples(words(answer))
    return bool(triples) and len(set(triples)) < REPEATING * len(triples)


def _triples(found: list[str]) -> list[tuple[str, ...]]:
    return list(zip(found, found[1:], found[2:], strict=False))
