"""What stands in the documentation: its pages, code blocks and spans, and the commands among them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HISTORY = ("docs/log.md",)
"""Says what was so when it was written."""

_FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*?) -->\n)?(?P<fence>```+)(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=fence)",
    re.DOTALL | re.MULTILINE,
)
_INDENTED = re.compile(r"(?:^\n|\A)((?:^    [^\n]*\n?)+)", re.MULTILINE)
_SPAN = re.compile(r"`([^`]+)`")
_PROGRAM = r"(?:(?:\.venv/bin/)?roslin|(?:srun |torchrun ).*-m roslin|python -m roslin)"
_CALL = re.compile(rf"^(?:\$ )?(?:[A-Z_]+=\S+ )*{_PROGRAM} (?P<words>.+)$")
_BENCH = re.compile(r"\bpython (?P<script>bench/\w+\.py)(?P<words>.*)")


@dataclass(frozen=True)
class Block:
    """A fenced block of code, and what the comment before it says of it."""

    page: Path
    language: str
    text: str
    mark: str | None


def pages() -> list[Path]:
    """The documentation's files that speak of the present."""
    found = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "notebooks").glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
    ]
    return sorted(page for page in found if page.relative_to(ROOT).as_posix() not in HISTORY)


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    found = _FENCE.finditer(page.read_text(encoding="utf-8"))
    return [Block(page, one["language"].strip(), one["text"], one["mark"]) for one in found]


def spans(page: Path) -> list[str]:
    """All code spans of a page, each on one line."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return [" ".join(span.split()) for span in _SPAN.findall(text)]


def command_lines(page: Path) -> list[str]:
    """The lines of a page's blocks that call something, those that were broken put together."""
    texts = [block.text for block in blocks(page) if block.language in ("", "bash", "sh", "console")]
    texts += _INDENTED.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))
    return [line.strip() for text in texts for line in text.replace("\\\n", " ").splitlines()]


def header_lines(recipe: Path) -> list[str]:
    """The lines of a recipe's header."""
    lines = recipe.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("#").strip() for line in lines if line.startswith("#")]


def calls(lines: list[str]) -> Iterator[list[str]]:
    """The words after `roslin` of lines that call it; what is optional is taken as given."""
    for line in lines:
        found = _CALL.match(line)
        if found:
            whole = re.sub(r"\[(--[^\]]*)\]", r"\1", found["words"])
            yield shlex.split(whole, comments=True)


def bench_calls(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Scripts of `bench/` that are called, each with the options that it is given."""
    for line in lines:
        for found in _BENCH.finditer(line):
            yield found["script"], re.findall(r"(?<!\S)\[?(--[a-z][a-z-]*)", found["words"])
