"""Sections that later work adds to a finished card: each between two comments, so that it can be replaced."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from roslin.errors import InputError, write_failed

CARD = "README.md"
PROVENANCE = "## Attribution"
"""The heading before which a new section goes: the card's last."""
_NAME = re.compile(r"[a-z][a-z0-9-]*")
_FENCE = re.compile(r" {0,3}(?P<ticks>`{3,}|~{3,})(?P<rest>.*)")


def put_section(folder: Path, name: str, markdown: str) -> Path:
    """Put a section into the card of a model folder, in the place of the one of that name if there is one.

    It stands between `<!-- roslin:NAME -->` and `<!-- /roslin:NAME -->`; a new one goes before the card's attribution,
    or to its end. Every other byte of the card stays as it was, and the card is whole at any moment. Gives the card's
    path. Raises InputError for a folder without a card, or a card whose comments do not match, and MachineError when
    it cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a section: small letters, digits and hyphens")
    card = folder / CARD
    text = _read(card)
    newline = "\r\n" if "\r\n" in text else "\n"
    start, end = _place(card, text, name)
    body = newline.join([f"<!-- roslin:{name} -->", *markdown.strip().splitlines(), f"<!-- /roslin:{name} -->"])
    if [line.strip() for _, line in _outside_fences(body)].count(f"<!-- /roslin:{name} -->") != 1:
        raise ValueError(f"the section {name} holds its own end mark, or a fence that is not closed")
    if start == end:
        body = _gap(text[:start], newline) + body + newline + (newline if text[end:] else "")
    _replace(card, text[:start] + body + text[end:])
    return card


def require_card(folder: Path, name: str) -> None:
    """Raise what `put_section` would raise for this folder and name, before the work that fills the section."""
    _place(folder / CARD, _read(folder / CARD), name)


def _read(card: Path) -> str:
    try:
        return card.read_bytes().decode("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{card.parent}: has no {CARD}, so there is no card to write into. Give the folder of a model that Roslin "
            f"tuned, or make a {CARD} there first."
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{card}: not valid UTF-8 at byte {error.start}. Save it as UTF-8.") from None
    except OSError as error:
        raise InputError(f"{card}: cannot be read ({error.strerror}).") from None


def _place(card: Path, text: str, name: str) -> tuple[int, int]:
    """Where the section of that name stands, its comments included; else the place for a new one, twice."""
    opening, closing = f"<!-- roslin:{name} -->", f"<!-- /roslin:{name} -->"
    found = [(at, line.strip()) for at, line in _outside_fences(text)]
    marks = [(at, line) for at, line in found if line in (opening, closing)]
    if [line for _, line in marks] == [opening, closing]:
        return marks[0][0], text.index(closing, marks[1][0]) + len(closing)
    if marks:
        raise InputError(
            f"{card}: holds {opening} and {closing} otherwise than once each, in that order. Delete these lines and "
            "what stands between them, and give the command again."
        )
    place = next((at for at, line in found if line == PROVENANCE), len(text))
    return place, place


def _outside_fences(text: str) -> Iterator[tuple[int, str]]:
    """Lines that are no code, with their places; the fences themselves are left out."""
    at, fence = 0, ""
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        match = _FENCE.match(line.rstrip("\r\n"))
        if fence:
            if match and match["ticks"].startswith(fence) and not match["rest"].strip():
                fence = ""
        elif match and not (match["ticks"][0] == "`" and "`" in match["rest"]):
            fence = match["ticks"]
        else:
            yield at, line
        at += len(line)


def _gap(before: str, newline: str) -> str:
    """What makes one blank line of what stands before a section."""
    if not before or before.endswith(2 * newline):
        return ""
    return newline if before.endswith("\n") else 2 * newline


def _replace(card: Path, text: str) -> None:
    """Write a card under another name, then give it its own: a reader sees the old one or the new one."""
    partial = None
    try:
        handle, partial = tempfile.mkstemp(dir=card.parent, prefix=f".{CARD}.")
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(card, partial)
        Path(partial).replace(card)
    except OSError as error:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
        raise write_failed(card, error) from error
