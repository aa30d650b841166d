"""Personal and secret matter in texts: what a data statement should know of. Patterns, so neither complete nor sure."""

import codecs
import re
from collections.abc import Iterator
from typing import NamedTuple


class Private(NamedTuple):
    """One find: its kind, and what to say of it. The matter itself is not repeated."""

    kind: str
    message: str


_EMAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9][\w.+-]*@"
    r"(?!(?:[\w-]+\.)*(?:example\.(?:com|net|org)|example|test|invalid|localhost)\b(?![.-]?\w))"  # nobody's (RFC 2606)
    r"(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}\b",
    re.ASCII,
)
_PHONE = re.compile(
    r"(?<![\w.+/-])(?<!\d )(?:"
    r"\+[1-9]\d{0,2}(?:[ .-]?\(?\d{1,4}\)?){2,5}"  # international
    r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|(?:1[ .-])?\d{3}([ .-])\d{3}\1\d{4}"  # North American
    r"|0\d{2,4}[ /-]\d{3,4}[ -]?\d{3,4}"  # national, with a leading zero
    r")(?![\w/-]|[. ]\d)",
    re.ASCII,
)
_CARD = re.compile(r"(?<![\w.,+-])\d(?:[ -]?\d){12,18}(?![\w-]|[.,]\d)", re.ASCII)
_SECRET = re.compile(
    r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"  # Amazon
    r"|\bAIza[0-9A-Za-z_-]{35}"  # Google
    r"|\bgh[pousr]_[0-9A-Za-z]{36}|\bgithub_pat_[0-9A-Za-z_]{50,}"
    r"|\bglpat-[0-9A-Za-z_-]{20}"  # GitLab
    r"|\bhf_[A-Za-z]{30,}"  # Hugging Face
    r"|\bsk-(?:ant|proj|svcacct|admin|or-v1)-[0-9A-Za-z_-]{20,}|\bsk-[0-9A-Za-z_]{20,}"  # Anthropic, OpenAI …
    r"|\b[rs]k_live_[0-9A-Za-z]{20,}"  # Stripe
    r"|\bxox[abprs]-[0-9A-Za-z-]{10,}"  # Slack
    r"|\bdapi[0-9a-f]{32}\b"  # Databricks
    r"|\beyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]{10,}",  # JSON web token
    re.ASCII,
)
_SECRET_MARKS = ("PRIVATE KEY", "AKIA", "ASIA", "AIza", "gh", "glpat-", "hf_", "sk-", "_live_", "xox", "dapi", "eyJ")
"""One of these is in every text that _SECRET finds something in; looking for them first is much faster."""

# Words that have hardly any other use than to insult people for what they are. Written in rot13, so that nobody who
# reads or searches this file has to meet them.
_SLUR_WORDS = codecs.decode("avttre avttn xvxr fcvp jrgonpx tbbx enturnq gbjryurnq snttbg", "rot13").split()
_SLURS = re.compile(rf"\b(?:{'|'.join(_SLUR_WORDS)})s?\b", re.IGNORECASE)

INVENTED_EXCHANGE = "55501"
"""North American numbers that end in 555-0100 to 555-0199 are kept for invented people."""

_CARD_STARTS = re.compile(r"4|5[1-5]|2[2-7]|3[0-9]|6")
"""First digits that payment networks have been given (ISO/IEC 7812)."""


def private_matter(text: str) -> Iterator[Private]:
    """Every find in a text, each kind at most once, with its count."""
    for kind, places in _places(text).items():
        if places:
            count = f"{len(places)} times, first" if len(places) > 1 else "once,"
            yield Private(kind, f"holds {_NAMES[kind]} ({count} at character {places[0] + 1}). {_MEND[kind]}")


def _places(text: str) -> dict[str, list[int]]:
    cards = [found.span() for found in _CARD.finditer(text) if is_card_number(found[0])]
    phones = [found.start() for found in _PHONE.finditer(text) if _is_phone(found[0])]
    lowered = text.lower()
    return {
        "e-mail": _starts(_EMAIL, text) if "@" in text else [],
        "telephone": [place for place in phones if not any(start <= place < end for start, end in cards)],
        "card": [start for start, _ in cards],
        "secret": _starts(_SECRET, text) if any(mark in text for mark in _SECRET_MARKS) else [],
        "slur": _starts(_SLURS, text) if any(word in lowered for word in _SLUR_WORDS) else [],
    }


def _starts(pattern: re.Pattern[str], text: str) -> list[int]:
    return [found.start() for found in pattern.finditer(text)]


_NAMES = {
    "e-mail": "an e-mail address",
    "telephone": "what looks like a telephone number",
    "card": "what looks like a payment card number",
    "secret": "what looks like an access key or private key",
    "slur": "a slur",
}
_MEND = {
    "e-mail": "Replace it by an invented one (such as name@example.com) unless it is public.",
    "telephone": "Replace it by an invented one (such as 555-0100) unless it is public.",
    "card": "Remove it.",
    "secret": "Remove it, and revoke it where it was made.",
    "slur": "Keep the record only if it speaks about the word.",
}


def _is_phone(text: str) -> bool:
    digits = "".join(filter(str.isdigit, text))
    return 8 <= len(digits) <= 15 and digits[-7:-2] != INVENTED_EXCHANGE


def is_card_number(text: str) -> bool:
    """Whether digits (spaces, hyphens) are of a payment card: a known beginning and a right check digit (Luhn)."""
    digits = [int(character) for character in text if character.isdigit()]
    if not _CARD_STARTS.match("".join(map(str, digits))) or len(set(digits)) == 1:
        return False
    doubled = [digit if place % 2 == 0 else sum(divmod(2 * digit, 10)) for place, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0
