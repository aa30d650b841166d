"""Every command that the documentation names is one that the program takes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer._click.exceptions import BadOptionUsage, ClickException, MissingParameter

from documents import ROOT, bench_calls, calls, command_lines, header_lines, pages, spans
from roslin.cli.main import app
from roslin.errors import InputError, UsageError
from roslin.tune import Recipe

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
PATHS = re.compile(r"(?<![\w./~-])(?:src|tests|bench|recipes|notebooks|docs)/[\w./*{},-]*")
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)")
every_page = pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())


def resolved(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words call, and the words that are left for it."""
    command, left = typer.main.get_command(app), list(words)
    while left and left[0] in getattr(command, "commands", {}):
        command = command.commands[left.pop(0)]
    return command, left


def parse(words: list[str]) -> None:
    """Raise what the program would for wrong words; settings of recipes that are here are read too."""
    command, left = resolved(words)
    if hasattr(command, "commands"):
        if left not in ([], ["--version"], ["--help"]):
            raise UsageError(f"no such command: {words}")
        return
    context = command.make_context(" ".join(words[: len(words) - len(left)]), left)
    source = context.params.get("recipe") or context.params.get("source")
    if words[0] in ("tune", "plan") and source and (ROOT / source).suffix == ".yaml":
        Recipe.load(ROOT / source, context.params["settings"] or [])


@every_page
def test_command_lines_parse(page: Path) -> None:
    for words in calls(command_lines(page)):
        parse(words)


@every_page
def test_commands_in_running_text_are_there(page: Path) -> None:
    """They may leave out what must be given, as a sentence does; what they name must exist."""
    for words in calls(spans(page)):
        said = words[: words.index("…")] if "…" in words else words
        try:
            parse(said)
        except (MissingParameter, BadOptionUsage):
            options = {option for parameter in resolved(said)[0].params for option in parameter.opts}
            assert {word for word in said if word.startswith("--")} <= options, said


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_commands_in_a_recipes_header_parse(recipe: Path) -> None:
    found = list(calls(header_lines(recipe)))
    assert found
    for words in found:
        parse(words)


@pytest.mark.parametrize(
    "words",
    [["tune"], ["tun", "x.yaml"], ["ask", "m", "q", "--contxt", "x"], ["plan", "m", "--gpu", "z9"], ["export", "m"]],
    ids=" ".join,
)
def test_what_the_program_refuses_is_found(words: list[str]) -> None:
    with pytest.raises((ClickException, UsageError)):
        parse(words)


def test_a_wrong_setting_is_found() -> None:
    with pytest.raises(InputError, match="unknown key"):
        parse(["tune", "recipes/dolly-v2-7b.yaml", "learning_rat=1e-5"])


def options_of(script: Path) -> set[str]:
    """The options that a script declares."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    made = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("add_argument")
    ]
    return {str(word.value) for node in made for word in node.args if isinstance(word, ast.Constant)}


@every_page
def test_benches_are_there_with_their_options(page: Path) -> None:
    for script, options in bench_calls([*command_lines(page), *spans(page)]):
        assert (ROOT / script).is_file(), script
        assert not set(options) - options_of(ROOT / script), (script, options)


@every_page
def test_tests_that_are_named_are_there(page: Path) -> None:
    for line in [*command_lines(page), *spans(page)]:
        found = re.search(r"pytest (.*)", line)
        if found:
            chosen = re.search(r"-k (\w+)", found[1])
            where = [path for name in PATHS.findall(found[1]) for path in files_of(ROOT / name)]
            names = re.findall(
                r"def (test_\w+)|ids=\[([^\]]*)", "\n".join(path.read_text(encoding="utf-8") for path in where)
            )
            assert where or not PATHS.search(found[1]), line
            assert chosen is None or any(chosen[1] in name for pair in names for name in pair), line


def files_of(path: Path) -> list[Path]:
    """The files of tests below a path."""
    return [path] if path.is_file() else sorted(path.rglob("test_*.py"))


@every_page
def test_paths_and_links_lead_somewhere(page: Path) -> None:
    for path in named_paths([*command_lines(page), *spans(page)]):
        # Databricks names a notebook without its ending.
        assert (ROOT / path).exists() or list(ROOT.glob(path)) or list(ROOT.glob(f"{path}.*")), path
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


def named_paths(lines: list[str]) -> Iterator[str]:
    """Paths of the repository; braces are several of them."""
    for line in lines:
        for found in PATHS.findall(line):
            path = found.rstrip(".,")
            braces = re.search(r"\{([^}]*)\}", path)
            yield from [path.replace(braces[0], one) for one in braces[1].split(",")] if braces else [path]
