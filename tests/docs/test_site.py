"""The site builds strictly, needs nothing of the network, and its references are whole."""

import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from filelock import FileLock

import roslin
from documents import ROOT
from roslin.cli.main import app
from roslin.tune.recipe import GROUPS, Recipe

FROM_ELSEWHERE = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")
"""What a browser would fetch from another host by itself; links that a reader follows are not among it."""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built once for all workers."""
    folder = tmp_path_factory.getbasetemp() / "site"
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent.parent / "site"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            build(folder)
    return folder


def build(folder: Path) -> None:
    nowhere = {"http_proxy": "http://0.0.0.0:9", "https_proxy": "http://0.0.0.0:9"}
    ended = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", **nowhere},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if ended.returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def text_of(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_it_needs_nothing_of_the_network(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        assert not FROM_ELSEWHERE.findall(page.read_text(encoding="utf-8")), page
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import )[\"']?https?:", sheet.read_text(encoding="utf-8")), sheet
    assert not (site / "hooks").exists()


def test_every_page_is_in_the_navigation(site: Path) -> None:
    """Strict building refuses the others; here, that it still does."""
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "strict: true" in settings and "omitted_files: warn" in settings
    for page in (ROOT / "docs").rglob("*.md"):
        assert page.relative_to(ROOT / "docs").as_posix() in settings, page


def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    text = text_of(site / "reference" / "cli.html")
    left = [("roslin", typer.main.get_command(app))]
    while left:
        path, command = left.pop()
        assert path in text
        left += [(f"{path} {name}", below) for name, below in getattr(command, "commands", {}).items()]
        shown = [
            p
            for p in command.params
            if not p.name.endswith("_completion") and p.name != "help" and not getattr(p, "hidden", False)
        ]
        for parameter in shown:
            name = (
                max(parameter.opts, key=len)
                if parameter.param_type_name == "option"
                else parameter.metavar or parameter.name
            )
            assert name in text, (path, name)


def test_every_setting_of_a_recipe_is_in_the_reference(site: Path) -> None:
    text = text_of(site / "reference" / "recipe.html")
    for kind in (Recipe, *GROUPS.values()):
        for name in kind.model_fields:
            assert re.search(rf"(?<!\w){name}(?!\w)", text), name


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    page = (site / "reference" / "python.html").read_text(encoding="utf-8")
    for name in (*roslin.__all__, "InputError", "UsageError", "MachineError"):
        assert re.search(rf'id="roslin\.[a-z._]*{name}"', page), name
