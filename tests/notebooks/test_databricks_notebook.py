"""The Databricks notebook, cell by cell, with a stand-in for dbutils and the small base on the CPU."""

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from databricks_widgets import Widgets
from roslin.integrations.databricks import Choices
from roslin.tune import PROBES

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "databricks_tune.py"
SEPARATOR = "\n# COMMAND ----------\n"


def cells() -> list[str]:
    """The notebook's cells as Databricks reads its source."""
    head, source = NOTEBOOK.read_text(encoding="utf-8").split("\n", 1)
    assert head == "# Databricks notebook source"
    return [cell.strip("\n") for cell in source.split(SEPARATOR)]


def test_every_cell_is_python_or_magic_and_every_widget_is_explained() -> None:
    widgets = Widgets()
    Choices.offer(widgets)
    for cell in cells():
        lines = [line for line in cell.split("\n") if line]
        magic = [line.startswith("# MAGIC") for line in lines]
        assert lines
        assert all(magic) or not any(magic)
        compile(cell, "cell", "exec")
    for name in widgets.offered:
        assert f"# MAGIC | `{name}` |" in cells()[0]
    assert any(cell.startswith("# MAGIC %pip install") for cell in cells())


@pytest.mark.full
def test_it_plans_tunes_asks_evaluates_and_copies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The least that each step can do: 40 records, a fraction of an epoch; an evaluation would take minutes."""
    starter = NOTEBOOK.parents[1] / "src/roslin/assets/records/starter.jsonl"
    mine = tmp_path / "mine.jsonl"
    mine.write_text("".join(starter.read_text(encoding="utf-8").splitlines(keepends=True)[:40]), encoding="utf-8")
    restarted: list[bool] = []
    dbutils = SimpleNamespace(
        widgets=Widgets(
            model="base",
            gpu_family="cpu",
            records=str(mine),
            local_output=str(tmp_path / "local"),
            output=str(tmp_path / "volume"),
            run_name="first run",
            evaluation="none",
            settings="epochs=1 warmup_updates=1 held_out.fraction=0.2",
        ),
        library=SimpleNamespace(restartPython=lambda: restarted.append(True)),
    )
    names: dict[str, Any] = {"dbutils": dbutils}
    with contextlib.chdir(NOTEBOOK.parent):
        for cell in cells():
            exec(compile(cell, "cell", "exec"), names)
    shown = capsys.readouterr().out
    assert restarted == [True]
    assert "Recipe starter.yaml, 1 process(es)" in shown
    assert "This fits this machine's CPU" in shown
    assert "Held-out response loss" in shown
    assert all(f"Instruction: {probe}" in shown for probe in PROBES)
    result = tmp_path / "volume" / "first_run"
    assert (result / "model" / "model.safetensors").is_file()
    assert (result / "model" / "README.md").is_file()
    assert (result / "log.jsonl").is_file()
    assert not (result / "checkpoints").exists()
