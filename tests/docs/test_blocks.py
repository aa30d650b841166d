"""The code in the documentation does what it says."""

import doctest
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from documents import ROOT, Block, blocks, pages
from model_folders import keyed_base
from roslin.tune import Recipe

ALL = [block for page in pages() for block in blocks(page)]
SOME = 260
"""Records that the commands are tried on."""


def named(block: Block) -> str:
    return f"{block.page.relative_to(ROOT).as_posix()}:{block.text.splitlines()[0][:40]}"


def pages_with(mark: str, language: str | None = None) -> list[Path]:
    found = [block.page for block in ALL if block.mark == mark and language in (None, block.language)]
    return list(dict.fromkeys(found))


@pytest.fixture(scope="module")
def model(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers."""
    return keyed_base(base_folder, tmp_path_factory.mktemp("docs") / "model")


@pytest.mark.parametrize("block", [block for block in ALL if block.language == "pycon"], ids=named)
def test_sessions_give_what_they_show(block: Block) -> None:
    test = doctest.DocTestParser().get_doctest(block.text, {}, block.page.name, str(block.page), 0)
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize("page", pages_with("needs: runs/mine/model", "python"), ids=lambda page: page.stem)
def test_python_that_needs_a_model_runs(
    page: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One block after another, as a reader would."""
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "model").symlink_to(model)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks(page):
        if block.mark == "needs: runs/mine/model":
            exec(compile(block.text, f"{page.name}", "exec"), names)


@pytest.mark.parametrize("block", [block for block in ALL if block.language == "python"], ids=named)
def test_all_python_compiles(block: Block) -> None:
    lines = [line for line in block.text.splitlines() if not line.startswith("%")]
    compile("\n".join(lines), block.page.name, "exec")


@pytest.mark.parametrize("block", [block for block in ALL if block.mark == "recipe"], ids=named)
def test_recipes_parse(block: Block) -> None:
    Recipe.parse(yaml.safe_load(block.text))


@pytest.mark.full
@pytest.mark.parametrize("page", pages_with("run"), ids=lambda page: page.stem)
def test_commands_run_as_written(page: Path, model: Path, tmp_path: Path) -> None:
    for name in ("recipes", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    starter = (ROOT / "src/roslin/assets/records/starter.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "my-records.jsonl").write_text("".join(starter[:SOME]), encoding="utf-8")
    commands = [block.text for block in blocks(page) if block.mark == "run"]
    if page.stem == "ask":
        shutil.copytree(model, tmp_path / "runs" / "mine" / "model")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ended = subprocess.run(
        ["bash", "-e", "-c", "\n".join(commands)],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    for folder in ("runs/two-processes", "runs/mine"):
        if f"output={folder}" in "".join(commands):
            assert (tmp_path / folder / "model" / "model.safetensors").is_file()
