"""Sections that Roslin writes into a card: each between two comments, so that it can be replaced and all else stays.

A section stands between `<!-- roslin:NAME HASH -->` and `<!-- /roslin:NAME -->`. HASH is of what stands between them,
so that words that a person wrote in there are seen, and not overwritten.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from roslin.errors import InputError
from roslin.publish.evidence.file import write_whole

CARD = "README.md"
PROVENANCE = "## Attribution"
"""The heading before which a new section goes where the card has no marks of Roslin's: mostly the card's last."""
_NAME = re.compile(r"[a-z][a-z0-9-]*")
_MARK = re.compile(r"<!-- (?P<end>/?)roslin:(?P<name>[a-z][a-z0-9-]*)(?: (?P<digest>[0-9a-f]{8}))? -->")
_FENCE = re.compile(r" {0,3}(?P<ticks>`{3,}|~{3,})(?P<rest>.*)")


@dataclass(frozen=True)
class Found:
    """A section as it stands in a card, comments included."""

    start: int
    end: int
    edited: bool
    """Whether it is not as Roslin wrote it."""


def put_section(folder: Path, name: str, markdown: str) -> Path:
    """Put a section into the card of a model folder, in the place of the one of that name if there is one.

    A new one goes before the card's attribution, or to its end. Every other byte of the card stays as it was, and the
    card is whole at any moment. Gives the card's path. Raises InputError for a folder without a card, for a card whose
    comments do not match or whose section a person has edited, and MachineError when it cannot be written.
    """
    card = folder / CARD
    text = read_card(card)
    require_unedited(card, text, [name])
    found = find_section(card, text, name)
    if found:
        text = text[: found.start] + marked(name, markdown, text) + text[found.end :]
    else:
        text = _inserted(text, _usual_place(text), marked(name, markdown, text))
    write_whole(card, text.encode("utf-8"))
    return card


def require_card(folder: Path, name: str) -> None:
    """Raise what `put_section` would raise for this folder and name, before the work that fills the section."""
    require_unedited(folder / CARD, read_card(folder / CARD), [name])


def read_card(card: Path) -> str:
    """A card's text. Raises InputError for one that is not there or is no text."""
    try:
        return card.read_bytes().decode("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{card.parent}: has no {CARD}, so there is no card to write into. Give the folder of a model that Roslin "
            f"tuned, or make a card there first: roslin card {card.parent}"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{card}: not valid UTF-8 at byte {error.start}. Save it as UTF-8.") from None
    except OSError as error:
        raise InputError(f"{card}: cannot be read ({error.strerror}).") from None


def with_sections(card: Path, text: str, sections: Mapping[str, str]) -> str:
    """The card's text with these sections: each where it stands, a new one behind the one before it in this order.

    A section without text is taken out. All else stays. Raises InputError for comments that do not match.
    """
    before: str | None = None
    for name, markdown in sections.items():
        found = find_section(card, text, name)
        if found and markdown:
            text = text[: found.start] + marked(name, markdown, text) + text[found.end :]
        elif found:
            text = text[: found.start].rstrip() + _newline(text) + text[found.end :]
        elif markdown:
            last = find_section(card, text, before) if before else None
            text = _inserted(text, last.end if last else _top(text), marked(name, markdown, text))
        before = name if markdown else before
    return text


def without_marks(text: str) -> str:
    """Text of others for a section: no line of it is a mark of a section, and every fence in it is closed."""
    lines = [f"\\{line.strip()}" if _MARK.fullmatch(line.strip()) else line for line in text.splitlines()]
    fence = ""
    for line in lines:
        fence = _fence_after(line, fence)
    return "\n".join([*lines, *([fence] if fence else [])])


def edited_sections(card: Path, text: str, names: Sequence[str]) -> list[str]:
    """Those of the sections that a person has edited. Raises InputError for comments that do not match."""
    found = {name: find_section(card, text, name) for name in names}
    return [name for name, section in found.items() if section and section.edited]


def require_unedited(card: Path, text: str, names: Sequence[str], otherwise: str = "") -> None:
    """Raise InputError where a person has edited what would be replaced; `otherwise` is what else may be done."""
    edited = edited_sections(card, text, names)
    if edited:
        marks = ", ".join(f"<!-- roslin:{name} … -->" for name in edited)
        raise InputError(
            f"{card}: what stands behind {marks} has been edited, and would be written anew. Move your own words "
            f"before that line, or behind <!-- /roslin:{edited[-1]} -->: there they are always kept. Or delete the "
            f"two comment lines and what stands between them{otherwise}."
        )


def marked(name: str, markdown: str, card: str = "") -> str:
    """A section between its comments, its lines ending as those of the card do."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a section: small letters, digits and hyphens")
    lines = markdown.strip().splitlines()
    body = _newline(card).join([f"<!-- roslin:{name} {_digest(lines)} -->", *lines, f"<!-- /roslin:{name} -->"])
    if [line.strip() for _, line in _outside_fences(body)].count(f"<!-- /roslin:{name} -->") != 1:
        raise ValueError(f"the section {name} holds its own end mark, or a fence that is not closed")
    return body


def find_section(card: Path, text: str, name: str) -> Found | None:
    """Where the section of that name stands. Raises InputError for comments that do not match."""
    marks = [(at, mark) for at, line in _outside_fences(text) if (mark := _MARK.fullmatch(line.strip()))]
    own = [(at, mark) for at, mark in marks if mark["name"] == name]
    if not own:
        return None
    if [bool(mark["end"]) for _, mark in own] != [False, True]:
        raise InputError(
            f"{card}: holds <!-- roslin:{name} --> and <!-- /roslin:{name} --> otherwise than once each, in that "
            "order. Delete these lines and what stands between them, and give the command again."
        )
    (start, opening), (last, closing) = own
    end = text.index(closing[0], last) + len(closing[0])
    inside = text[text.index(opening[0], start) + len(opening[0]) : last]
    digest = opening["digest"]
    return Found(start, end, digest is not None and digest != _digest(inside.strip().splitlines()))


def _digest(lines: Sequence[str]) -> str:
    """Of a section's lines, whatever ends them."""
    return hashlib.sha256("\n".join(line.rstrip() for line in lines).encode()).hexdigest()[:8]


def _top(text: str) -> int:
    """Behind the metadata."""
    header = re.match(r"---\r?\n(?:.*\r?\n)*?---\r?\n", text)
    return header.end() if header else 0


def _usual_place(text: str) -> int:
    known = [at for at, line in _outside_fences(text) if (mark := _MARK.fullmatch(line.strip())) and not mark["end"]]
    headings = [at for at, line in _outside_fences(text) if line.strip() == PROVENANCE]
    if not headings:
        return len(text)
    within = [at for at in known if at < headings[0]]
    opening = within[-1] if within else None
    if opening is not None and "<!-- /roslin:" not in text[opening : headings[0]]:
        return opening  # the attribution is a section itself
    return headings[0]


def _inserted(text: str, at: int, body: str) -> str:
    newline = _newline(text)
    before, after = text[:at], text[at:]
    body = _gap(before, newline) + body + newline
    if after.startswith(newline) and before and not before.endswith("\n"):
        after = after.removeprefix(newline)
    return before + body + (newline if after and not after.startswith(("\n", "\r\n")) else "") + after


def _gap(before: str, newline: str) -> str:
    """What makes one blank line of what stands before a section."""
    if not before or before.endswith(2 * newline):
        return ""
    return newline if before.endswith("\n") else 2 * newline


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _outside_fences(text: str) -> Iterator[tuple[int, str]]:
    """Lines that are no code, with their places; the fences themselves are left out."""
    at, fence = 0, ""
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        after = _fence_after(line, fence)
        if not fence and not after:
            yield at, line
        fence = after
        at += len(line)


def _fence_after(line: str, fence: str) -> str:
    """What a block of code is closed with behind this line, "" outside one; `fence` is the same before it."""
    match = _FENCE.match(line.rstrip("\r\n"))
    if fence:
        closed = match and match["ticks"].startswith(fence) and not match["rest"].strip()
        return "" if closed else fence
    opened = match and not (match["ticks"][0] == "`" and "`" in match["rest"])
    return match["ticks"] if match and opened else ""
