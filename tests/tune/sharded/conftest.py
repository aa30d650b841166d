"""Runs that torchrun starts on recipes of the tests."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from roslin.tune import Recipe
from sharded_runs import BEFALLEN, Launch, torchrun

if TYPE_CHECKING:
    import subprocess


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    """Start a recipe on so many processes; `befalls` is (signal, rank, update)."""

    def start(
        recipe: Recipe, processes: int, *, befalls: tuple[int, int, int] | None = None, options: tuple[str, ...] = ()
    ) -> "subprocess.CompletedProcess[str]":
        file = tmp_path / f"{recipe.output.name}.yaml"
        file.write_text(recipe.model_dump_json(), encoding="utf-8")
        count = f"--nproc-per-node={processes}"
        return torchrun(count, *options, str(BEFALLEN), str(file), *map(str, befalls or ()))

    return start
