"""Writes the command line's reference into the site from the Typer app itself; see `mkdocs.yml`.

A page that holds the line `<!-- every command -->` gets every command and option there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer.main

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "<!-- every command -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs' event: replace the mark, where there is one."""
    return markdown.replace(MARK, reference()) if MARK in markdown else markdown


def reference() -> str:
    """The whole reference in Markdown."""
    from roslin.cli.main import app

    return "\n".join(
        line for path, command in commands(typer.main.get_command(app)) for line in _section(path, command)
    )


def commands(root: Any, path: str = "roslin") -> Iterator[tuple[str, Any]]:
    """A command and all below it, with the words that call each."""
    yield path, root
    for name, command in getattr(root, "commands", {}).items():
        yield from commands(command, f"{path} {name}")


def _section(path: str, command: Any) -> Iterator[str]:
    context = command.context_class(command, info_name=path)
    yield from (f"## {path}", "", command.help or "", "")
    if hasattr(command, "commands"):
        yield from ("Its commands: " + ", ".join(f"`{name}`" for name in command.commands) + ".", "")
    yield from ("```", " ".join([path, *command.collect_usage_pieces(context)]), "```", "")
    rows = [row for parameter in command.get_params(context) if (row := _row(parameter, context))]
    if rows:
        yield from ("| argument or option | |", "|---|---|", *rows, "")


def _row(parameter: Any, context: Any) -> str | None:
    """An argument or option as a row of a table; None for one that is hidden or that every command has."""
    record = parameter.get_help_record(context)
    if record is None or parameter.name in ("help", "install_completion", "show_completion"):
        return None
    name, words = record
    words = words.replace("|", "\\|")
    return f"| `{name}` | {words} |"
