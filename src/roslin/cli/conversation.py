"""A conversation in the terminal: what is typed, what is answered, and what of it is kept."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from roslin.cli.ask import decoded, read_context, show, tell, timing_line, typed_path
from roslin.errors import RoslinError

if TYPE_CHECKING:
    from roslin.answer import Roslin
    from roslin.answer.answer import Keywords

GREETING = (
    "Each question stands by itself: the model does not see what was said before, only the context you give it.\n"
    "/help lists what can be typed; Ctrl-C stops an answer, Ctrl-D leaves."
)
HELP = """\
Type a question and Enter. Beside questions:
  /context TEXT   give this text to every question from now on (@FILE reads a file); /context alone takes it away
  /reset          forget the context and what was said so far
  /save FILE      write what was said so far as records (JSONL), one a line, ready for `roslin tune`
  /help           this list
  /quit           leave (so does Ctrl-D)"""


class Conversation:
    """Reads lines until there are no more; questions go to the model, lines with a slash are commands."""

    def __init__(self, roslin: "Roslin", settings: "Keywords") -> None:
        """Ask `roslin` with these settings each time."""
        self._roslin = roslin
        self._settings = settings
        self._context: str | None = None
        self._records: list[dict[str, str]] = []
        self._written: set[Path] = set()
        self._over = False
        self._commands: dict[str, Callable[[str], None]] = {
            "/context": self._set_context,
            "/reset": self._reset,
            "/save": self._save,
            "/help": lambda _: tell(HELP),
            "/quit": self._quit,
        }

    def run(self) -> None:
        """Talk until /quit or the end of input."""
        tell(GREETING)
        read_line = _line_reader()
        while not self._over:
            try:
                self.take(read_line())
            except EOFError:
                return
            except KeyboardInterrupt:
                tell("(stopped; Ctrl-D leaves)")
            except RoslinError as error:
                tell(f"roslin: {error}")

    def take(self, line: str) -> None:
        """One line, or several that were pasted: a command, a question, or nothing."""
        line = line.strip()
        name, rest = [*line.split(maxsplit=1), "", ""][:2]
        if name in self._commands:
            self._commands[name](rest)
        elif name.startswith("/"):
            tell(f"There is no {name}; /help lists what can be typed.")
        elif line:
            self._ask(line)

    def _ask(self, question: str) -> None:
        answer = show(self._roslin.stream(question, self._context, **self._settings))
        tell(timing_line(answer))
        if answer.text:  # a record without a response teaches nothing
            self._records.append({"instruction": question, "context": self._context or "", "response": answer.text})

    def _set_context(self, text: str) -> None:
        self._context = read_context(text) or None
        tell(f"Context: {len(self._context)} characters." if self._context else "No context.")

    def _reset(self, _: str) -> None:
        self._context = None
        self._records.clear()
        self._written.clear()  # what was saved is no longer this conversation's to write over
        tell("Context and conversation forgotten.")

    def _save(self, name: str) -> None:
        if not name:
            tell("/save needs the name of a file.")
        elif not self._records:
            tell("Nothing has been said yet.")
        else:
            self._write(typed_path(name).absolute())

    def _write(self, path: Path) -> None:
        try:
            with path.open("wb" if path in self._written else "xb") as file:
                self._written.add(path)
                file.writelines(orjson.dumps(record) + b"\n" for record in self._records)
        except FileExistsError:
            tell(f"{path} is there already, and is not from this conversation; choose another name.")
        except OSError as error:
            tell(f"{path} cannot be written ({error.strerror}).")
        else:
            count = len(self._records)
            tell(f"{count} {'record' if count == 1 else 'records'} written to {path}.")

    def _quit(self, _: str) -> None:
        self._over = True


def _line_reader() -> Callable[[], str]:
    """Reads a line with editing and history in a terminal, and plainly from a pipe. Raises EOFError at the end."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _plain_line
    from prompt_toolkit import PromptSession

    session: PromptSession[str] = PromptSession()
    return lambda: session.prompt("> ")


def _plain_line() -> str:
    line = sys.stdin.buffer.readline()
    if not line:
        raise EOFError
    return decoded(line, "stdin")
