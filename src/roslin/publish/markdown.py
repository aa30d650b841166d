"""Text of others as Markdown, so that it reads as it was given and cannot become headings, cells, links or HTML."""

import re

MARKS = re.compile(r"[\\`*\[\]<|#&~]|(?<!\w)_|_(?!\w)")


def plain(text: str) -> str:
    """Text in a sentence, a heading or a table's cell."""
    return MARKS.sub(r"\\\g<0>", " ".join(text.split()))


def code(text: str) -> str:
    """Text as code within a line: between more backticks than it has in a row."""
    line = " ".join(text.split())
    ticks = "`" * (_longest_run(line) + 1)
    pad = " " if "`" in line else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def in_cell(markdown: str) -> str:
    """Markdown in a table's cell, which a bare `|` would end, within code too."""
    return re.sub(r"(?<!\\)\|", r"\\|", markdown)


def fenced(text: str, language: str) -> str:
    """Lines as a block of code."""
    ticks = "`" * max(3, _longest_run(text) + 1)
    return f"{ticks}{language}\n{text.strip()}\n{ticks}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
