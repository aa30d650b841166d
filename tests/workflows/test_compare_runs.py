"""A run repeated from its folder, what the folder says of it, and two runs held against each other."""

import hashlib
import io
import json
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner, Result

from roslin.cli.main import app
from roslin.errors import InputError, UsageError
from roslin.model.fingerprint import fingerprint
from roslin.tune import Interrupted, Recipe, prepare
from roslin.workflows.compare_runs import compare_runs
from roslin.workflows.run_facts import RunFacts
from roslin.workflows.run_folder import drop_run
from roslin.workflows.tune import tune
from tiny import tiny_gpt_neox

RECIPE = """\
model: {folder}/base
records: {folder}/records.jsonl
output: {folder}/first
held_out: {{fraction: 0.3}}
epochs: 2
records_per_update: 8
learning_rate: 1e-3
warmup_updates: 2
max_length: 128
row_length: 256
evaluate_every: 4
checkpoint_every: 4
precision: fp32
trackers: []
"""
SPEEDS = ("tokens_per_second", "memory_gib", "seconds_left", "mfu")


def check(*words: object) -> Result:
    return CliRunner().invoke(app, ["tune", "--check", *map(str, words)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Path:
    """A base, records of which one category is rare, a recipe, and what it said when it was run into `first`."""
    folder = tmp_path_factory.mktemp("runs")
    tiny_gpt_neox(folder / "base", vocab_size=8192)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base_folder / name, folder / "base" / name)
    rows = [
        {
            "instruction": f"Say the number {n} in words.",
            "response": f"It is {n * 7}, and {n % 5} more.",
            "category": "rare" if n % 10 == 0 else "common",
        }
        for n in range(70)
    ]
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder), encoding="utf-8")
    told = io.StringIO()
    tune(Recipe.load(folder / "recipe.yaml"), restart=False, console=Console(file=told, width=200))
    (folder / "told.txt").write_text(told.getvalue(), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def other(folder: Path) -> Path:
    """The same run at another learning rate."""
    recipe = Recipe.load(folder / "recipe.yaml", ["learning_rate=5e-4", f"output={folder}/other"])
    tune(recipe, restart=False, console=Console(file=io.StringIO()))
    return folder / "other"


def curve(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key not in SPEEDS} for line in lines]


def facts_of(run: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((run / "facts.json").read_text(encoding="utf-8"))
    return facts


@pytest.mark.full
def test_a_run_is_repeated_from_its_folder_alone(folder: Path) -> None:
    """By its own copy of the recipe, and the records where its facts say they are."""
    command = [sys.executable, "-m", "roslin", "tune", str(folder / "first"), f"output={folder}/again"]
    repeated = subprocess.run(command, capture_output=True, text=True, check=False)
    assert repeated.returncode == 0, repeated.stderr
    assert curve(folder / "again") == curve(folder / "first")
    checked = check(folder / "first", folder / "again")
    assert checked.exit_code == 0, checked.output
    assert "Recipes: no difference." in checked.stdout
    assert "Facts: no difference." in checked.stdout
    assert "equal to the last digit" in checked.stdout
    assert "The curves agree within 0.0001 nats" in checked.stdout


def test_the_facts_are_those_of_the_run(folder: Path) -> None:
    facts = facts_of(folder / "first")
    [start] = facts["starts"]
    [file] = facts["records"]["files"]
    digest = hashlib.sha256((folder / "records.jsonl").read_bytes()).hexdigest()
    assert (file["path"], file["sha256"]) == (str(folder / "records.jsonl"), digest)
    counted = [facts["records"][part]["by_category"] for part in ("train", "held_out")]
    assert {name: sum(part[name] for part in counted) for name in ("common", "rare")} == {"common": 63, "rare": 7}
    assert facts["model"]["sha256"] == fingerprint(folder / "base")
    assert start["packages"]["python"] == platform.python_version()
    assert start["packages"]["torch"] == version("torch")
    assert start["packages"]["tokenizers"] == version("tokenizers")
    assert start["numerics"]["threads"] == torch.get_num_threads()
    assert start["machine"]["cores"] > 0 and start["machine"]["memory_gib"] > 0 and start["machine"]["cpu"]
    assert start["passes"]["dtype"] == "float32"
    assert start["processes"] == 1
    assert len(start["code"]["sha256"]) == 64
    assert start["outcome"] == "finished"
    assert start["started"] <= start["ended"]
    last = [line for line in curve(folder / "first") if line["kind"] == "evaluation"][-1]
    assert facts["result"]["held_out"] == pytest.approx(last["held_out"], rel=1e-9)
    assert facts["updates"] == facts["result"]["updates"] == last["update"]


def test_environment_variables_that_change_numbers_are_facts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setenv("MY_SECRET", "x")
    recipe = Recipe.load(folder / "recipe.yaml", [f"output={folder}/facts-alone"])
    facts = RunFacts(recipe, prepare(recipe))
    facts.begin(0)
    environment = facts_of(folder / "facts-alone")["starts"][0]["environment"]
    assert environment["NVIDIA_TF32_OVERRIDE"] == "0"
    assert environment["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert "MY_SECRET" not in environment


def test_each_start_of_a_run_is_told(folder: Path) -> None:
    recipe = Recipe.load(folder / "recipe.yaml", [f"output={folder}/twice"])
    prepared = prepare(recipe)

    def start(from_update: int, end: type[BaseException]) -> list[tuple[int, str]]:
        facts = RunFacts(recipe, prepared)
        with pytest.raises(end), facts.ending():
            facts.begin(from_update)
            assert facts_of(folder / "twice")["starts"][-1]["outcome"] is None, "written before anything is tuned"
            raise end("the disk is full")
        return [(entry["from_update"], entry["outcome"]) for entry in facts_of(folder / "twice")["starts"]]

    assert start(0, Interrupted) == [(0, "stopped")]
    assert start(4, InputError) == [(0, "stopped"), (4, "failed: the disk is full")]
    assert start(0, MemoryError) == [(0, "failed: MemoryError")], "a run that starts anew has its own facts"


def test_the_end_tells_every_category_and_where_records_are_too_few(folder: Path) -> None:
    told = (folder / "told.txt").read_text(encoding="utf-8")
    evaluation = [line for line in curve(folder / "first") if line["kind"] == "evaluation"][-1]
    assert evaluation["interval_by_category"]["rare"] is None
    low, high = evaluation["interval_by_category"]["common"]
    assert low < evaluation["by_category"]["common"] < high
    low, high = evaluation["interval"]
    assert low < evaluation["held_out"] < high
    rows = {words[1]: line for line in told.splitlines() if len(words := line.split()) > 2 and words[0] in "│┃|"}
    assert "too few records" in rows["rare"] and "[" not in rows["rare"]
    assert rows["common"].count("[") == 3 and "too few" not in rows["common"]
    assert f"{evaluation['by_category']['common']:.3f}" in rows["common"]
    card = (folder / "first" / "model" / "README.md").read_text(encoding="utf-8")
    assert "Categories of fewer than 10 records have no intervals." in card
    assert f"| common | {evaluation['records_by_category']['common']} | " in card


def test_runs_that_part_are_told_apart(folder: Path, other: Path) -> None:
    checked = check(folder / "first", other, "--json")
    assert checked.exit_code == 1, checked.output
    found = json.loads(checked.stdout)
    assert not found["agrees"]
    assert found["recipe"] == [{"key": "learning_rate", "first": "0.001", "second": "0.0005"}]
    assert found["facts"] == []
    curves = [[line for line in curve(run) if line["kind"] == "update"] for run in (folder / "first", other)]
    gaps = [b["loss"] - a["loss"] for a, b in zip(*curves, strict=True)]
    loss = found["curves"][0]
    assert gaps[0] == 0, "the first loss is the base's"
    assert loss["parting"]["update"] == next(i for i, gap in enumerate(gaps, 1) if abs(gap) > 1e-4)
    widest = int(np.argmax(np.abs(gaps)))
    assert loss["largest"]["update"] == curves[0][widest]["update"]
    assert loss["largest"]["second"] - loss["largest"]["first"] == pytest.approx(gaps[widest])

    first, second = (json.loads((run / "held_out.json").read_text()) for run in (folder / "first", other))
    change = found["held_out"]["whole"]["change"]
    nll = [np.array(part["tuned"]["nll"]) for part in (first, second)]
    assert change["estimate"] == pytest.approx((nll[1] - nll[0]).sum() / sum(first["tokens"]))
    assert change["low"] < change["estimate"] < change["high"]
    assert set(found["held_out"]["by_category"]) == {"common", "rare"}

    lenient = check(folder / "first", other, "--tolerance", "10")
    assert lenient.exit_code == 0
    assert "learning_rate" in lenient.stdout


def test_a_run_that_is_shorter_does_not_agree(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "first", tmp_path / "cut")
    log = tmp_path / "cut" / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    log.write_text("".join(lines[:5]) + lines[5][:20], encoding="utf-8")  # the last line was cut off by a crash
    found = compare_runs(folder / "first", tmp_path / "cut")
    assert not found.agrees
    assert found.curves[0].parting is None
    assert found.curves[0].largest is not None and found.curves[0].largest.gap == 0
    assert (found.curves[0].last_first or 0) > (found.curves[0].last_second or 0) > 0


def test_what_the_plans_chose_otherwise_is_told(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "first", tmp_path / "elsewhere")
    path = tmp_path / "elsewhere" / "plan.json"
    plan = json.loads(path.read_text(encoding="utf-8"))
    plan["predicted"] |= {"moments": "8bit", "total": 1}
    path.write_text(json.dumps(plan), encoding="utf-8")
    [difference] = compare_runs(folder / "first", tmp_path / "elsewhere").facts
    assert (difference.key, difference.first, difference.second) == ("plan.moments", "fp32", "8bit")


def test_other_records_and_other_packages_are_told(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "first", tmp_path / "changed")
    facts = facts_of(folder / "first")
    facts["records"]["train"]["sha256"] = "0" * 64
    facts["starts"][0]["packages"]["torch"] = "1.0"
    facts["starts"][0]["started"] = "1996-07-05"
    (tmp_path / "changed" / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    held_out = json.loads((folder / "first" / "held_out.json").read_text(encoding="utf-8"))
    (tmp_path / "changed" / "held_out.json").write_text(json.dumps(held_out | {"digest": "1"}), encoding="utf-8")
    found = compare_runs(folder / "first", tmp_path / "changed")
    assert {difference.key for difference in found.facts} == {"records.train.sha256", "packages.torch"}
    assert found.held_out is None, "losses on other records are no pairs"
    assert found.agrees


def test_what_is_no_run_is_refused(folder: Path, tmp_path: Path) -> None:
    for pair in ((folder / "first", tmp_path), (folder / "recipe.yaml", folder / "first")):
        refused = check(*pair).exception
        assert isinstance(refused, InputError) and "no run's folder" in str(refused)
    assert isinstance(check(folder / "recipe.yaml", "--json").exception, UsageError)
    no_recipe = check(tmp_path).exception
    assert isinstance(no_recipe, InputError) and "a folder without run.yaml" in str(no_recipe)


def test_a_dropped_run_leaves_nothing_of_its_own(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "first", tmp_path / "run")
    (tmp_path / "run" / "trackers").mkdir()
    drop_run(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir() if path.name != ".lock"] == []
