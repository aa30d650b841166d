"""How an answer falls into words, sentences and parts, as IFEval's checks count them."""

import re

_WORD = re.compile(r"\w+")
_CHUNK = re.compile(r"\w[\w.'’/-]*")
_CONTRACTED = re.compile(r"(?i)(?:n['’]t|['’](?:ll|re|ve|s|m|d))$")
_END = re.compile(r"([.!?]+)[\"'”’)\]*_]*(?=\s)")
_OPENING = "\"'“‘([*_"

_TITLES = ("mr", "mrs", "ms", "dr", "prof", "rev", "st", "gen", "col", "capt", "sgt", "lt", "gov", "sen", "rep", "hon")
_OTHERS = ("u.s", "u.k", "pres", "vs", "vol", "fig", "approx", "dept", "est", "e.g", "i.e", "cf", "ca")
_MONTHS = ("jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec")
_OFTEN_LAST = frozenset(("no", "inc", "ltd", "co", "corp", "a.m", "p.m", "jr", "sr", "ph.d", "al", *_MONTHS))
"""Abbreviations that end a sentence all the same before a capital."""
ABBREVIATIONS = frozenset((*_TITLES, *_OTHERS, *_OFTEN_LAST))
"""Words whose period does not end a sentence, unless they are among those."""


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores."""
    return _WORD.findall(text)


def capital_words(text: str) -> list[str]:
    """Words all of whose letters are capitals. Joined by a hyphen they are one word; `DON'T` is two, `DO` and `N'T`.

    The reference splits by nltk's word_tokenize; this agrees with it but for rare contractions such as CANNOT.
    """
    found: list[str] = []
    for chunk in _CHUNK.findall(text):
        word = chunk.rstrip("'’/-")
        tail = _CONTRACTED.search(word)
        found += [word[: tail.start()], tail[0]] if tail else [word]
    return [word for word in found if word.isupper()]


def sentences(text: str) -> list[str]:
    """Sentences: they end at `.`, `!` or `?` (closing quotes and brackets included) before a blank.

    A period ends none after an abbreviation or an initial, nor after a number or dots before a small letter; a new line
    ends none. The reference has a trained model, nltk's Punkt for English, which knows more abbreviations; as there,
    the number of a list's item is a sentence when a capital follows it.
    """
    found: list[str] = []
    start = 0
    for end in _END.finditer(text):
        after = text[end.end() :].lstrip()
        if after and _ends_sentence(text[start : end.start()], end[1], after):
            found.append(text[start : end.end()].strip())
            start = end.end()
    rest = text[start:].strip()
    return [*found, rest] if rest else found


def _ends_sentence(before: str, mark: str, after: str) -> bool:
    if mark.strip("."):
        return True
    first = after.lstrip(_OPENING)[:1]
    last = "".join(before.rsplit(maxsplit=1)[-1:]).lstrip(_OPENING).lower()
    if len(mark) > 1 or last.isdigit():
        return not first.islower()
    if len(last) == 1 and last.isalpha():  # an initial; `I` ends a sentence as seldom
        return False
    return last not in ABBREVIATIONS or (last in _OFTEN_LAST and first.isupper())


def divided(text: str) -> list[str]:
    """Parts between `***`, the divider of paragraphs, with a blank on either side of it or none."""
    return re.split(r"\s?\*\*\*\s?", text)
