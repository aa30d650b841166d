"""Where the command line writes: progress on stderr, results on stdout."""

import sys
import unicodedata
from typing import TextIO

from rich.console import Console


class _Screen(Console):
    """A console that leaves it to the command to end when nobody reads any more; Rich's own would exit with 1."""

    def on_broken_pipe(self) -> None:
        """Let the error pass on."""
        raise BrokenPipeError


def progress_console() -> Console:
    """The console for what is going on; lines are not wrapped when stderr is a file."""
    console = _Screen(stderr=True, highlight=False, force_terminal=terminal(sys.stderr))
    return console if console.is_terminal else _Screen(stderr=True, highlight=False, width=400, force_terminal=False)


def result_console() -> Console:
    """The console for results; wide enough for a table of intervals when stdout is a file."""
    console = _Screen(highlight=False, force_terminal=terminal(sys.stdout))
    return console if console.is_terminal else _Screen(highlight=False, width=110, force_terminal=False)


def terminal(stream: TextIO) -> bool | None:
    """Rich's `force_terminal`, by which only a terminal is one: Jupyter sets FORCE_COLOR and moves no cursor."""
    return None if stream.isatty() else False


def printable(text: str) -> str:
    """The text without control characters, so that nothing others wrote can move the cursor or colour the terminal."""
    return "".join(c if c == "\n" or unicodedata.category(c) != "Cc" else "\ufffd" for c in text)
