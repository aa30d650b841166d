"""What the widgets of the Databricks notebook ask for: every combination names a recipe that fits, or says why not."""

import functools
import itertools
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from databricks_widgets import Widgets
from roslin.errors import InputError, MachineError, RoslinError, UsageError
from roslin.integrations import databricks
from roslin.integrations.databricks import (
    COUNTS,
    FAMILIES,
    MACHINES,
    RECIPES,
    Choices,
    find_repository,
    plan_job,
    run,
    tune_in_a_worker,
)
from roslin.memory import GPUS
from roslin.model.describe import describe
from roslin.tune import Recipe
from roslin.tune.alternatives import lacking, precision_on
from roslin.tune.plan import gpus_of, plan_run
from roslin.tune.work import work_before_tuning

ROOT = Path(__file__).parents[2]
ON_VOLUMES = {"local_output": "/Volumes/main/default/work", "output": "/Volumes/main/default/models"}


@functools.cache
def verdict(recipe: str, family: str, processes: int) -> str | None:
    """Why a recipe, as JSON, does not run there; asked once, not for each of hundreds of combinations."""
    return WHY_NOT(Recipe.model_validate_json(recipe), family, processes)


WHY_NOT = databricks._why_not


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databricks, "_why_not", lambda r, *gpus: verdict(r.model_dump_json(), *gpus))


@functools.cache
def fits(stem: str, family: str, processes: int) -> bool:
    """Whether a recipe on dolly-15k fits by the planner that `roslin plan` asks."""
    recipe = Recipe.load(ROOT / "recipes" / f"{stem}.yaml")
    machine = gpus_of(family, processes)
    [model] = describe([recipe.model])
    work, _ = work_of(stem)
    found = plan_run(recipe, model.config, precision_on(recipe, machine), work, machine)
    return found.fits and lacking(recipe, GPUS[family]) is None


@functools.cache
def work_of(stem: str) -> Any:
    recipe = Recipe.load(ROOT / "recipes" / f"{stem}.yaml")
    [model] = describe([recipe.model])
    return work_before_tuning(recipe, model.folder)


def test_the_widgets_are_read_as_they_are_offered() -> None:
    widgets = Widgets(gpu_family="h100", settings=" epochs=1 ")
    Choices.offer(widgets)
    assert widgets.offered["gpu_family"] == list(FAMILIES)
    assert widgets.offered["num_gpus"] == list(COUNTS)
    assert widgets.offered["model"] == list(RECIPES)
    assert widgets.offered["records"] is None
    assert Choices.read(widgets) == Choices(gpu_family="h100", settings="epochs=1")


def test_every_recipe_of_the_dolly_family_can_be_chosen() -> None:
    stems = {path.stem for path in (ROOT / "recipes").glob("dolly-*.yaml")}
    assert {stem for family in RECIPES.values() for stem in family} == stems | {"starter"}
    for model, family in RECIPES.items():
        assert {Recipe.load(ROOT / "recipes" / f"{stem}.yaml").model for stem in family} == {model}


@pytest.mark.full
@pytest.mark.parametrize("model", RECIPES)
def test_every_combination_fits_or_is_refused_in_one_line(model: str) -> None:
    planned = refused = 0
    for family, count, machines in itertools.product(FAMILIES, COUNTS, MACHINES):
        choices = Choices(model=model, gpu_family=family, num_gpus=count, machines=machines, **ON_VOLUMES)
        try:
            job = plan_job(choices, ROOT)
        except RoslinError as error:
            refused += 1
            assert "\n" not in str(error)
            assert "choose" in str(error).lower()
            assert isinstance(error, UsageError if family == "cpu" else MachineError)
            continue
        planned += 1
        assert job.processes == int(count) * int(machines)
        if family != "cpu":
            assert fits(job.recipe.stem, family, job.processes), (family, count, machines)
    assert planned > refused


@pytest.mark.parametrize(
    ("model", "family", "count", "recipe"),
    [
        ("EleutherAI/pythia-2.8b", "a10", "1", "dolly-v2-3b-24gb"),
        ("EleutherAI/pythia-2.8b", "v100", "1", "dolly-v2-3b-lora"),
        ("EleutherAI/pythia-2.8b", "a100-40", "1", "dolly-v2-3b"),
        ("EleutherAI/pythia-6.9b", "a10", "1", "dolly-v2-7b-lora"),
        ("EleutherAI/pythia-6.9b", "a10", "8", "dolly-v2-7b"),
        ("EleutherAI/pythia-6.9b", "a100", "1", "dolly-v2-7b"),
        ("EleutherAI/pythia-12b", "a10", "1", "dolly-v2-12b-qlora"),
        ("EleutherAI/pythia-12b", "h100", "1", "dolly-v2-12b-80gb"),
        ("EleutherAI/gpt-j-6B", "a100", "8", "dolly-v1-6b"),
    ],
)
def test_all_weights_where_they_fit_and_else_what_does(model: str, family: str, count: str, recipe: str) -> None:
    """As the recipes' headers say; an adapter only where nothing tunes all weights."""
    job = plan_job(Choices(model=model, gpu_family=family, num_gpus=count), ROOT)
    assert job.recipe == ROOT / "recipes" / f"{recipe}.yaml"


def test_one_process_a_gpu() -> None:
    alone = plan_job(Choices(model="EleutherAI/pythia-6.9b", gpu_family="a100", output="dbfs:/models"), ROOT)
    assert alone.result == Path("/dbfs/models/dolly-v2-7b")
    assert alone.tune_command[1:4] == ["-m", "roslin", "tune"]
    many = plan_job(Choices(model="EleutherAI/pythia-6.9b", gpu_family="a100", num_gpus="8", run_name="my run"), ROOT)
    begun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "8", "-m", "roslin", "tune"]
    assert many.tune_command[1 : 1 + len(begun)] == begun
    assert many.tune_command[-2:] == ["records=databricks/databricks-dolly-15k", f"output={many.folder}"]
    assert many.folder.name == many.result.name == "my_run"
    assert many.plan_command[-4:] == ["--gpu", "a100", "--count", "8"]


@pytest.mark.full
def test_roslin_plan_agrees_with_what_was_chosen() -> None:
    job = plan_job(Choices(model="EleutherAI/pythia-12b", gpu_family="a10"), ROOT)
    ended = subprocess.run(job.plan_command, cwd=job.repository, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "This fits A10 24 GB" in ended.stdout


@pytest.mark.full
@pytest.mark.parametrize("evaluation", ["limits", "benchmarks"])
def test_what_evaluates_is_a_command_that_misses_nothing_but_the_model(evaluation: str, tmp_path: Path) -> None:
    chosen = Choices(model="base", gpu_family="cpu", local_output=str(tmp_path), evaluation=evaluation)
    job = plan_job(chosen, ROOT)
    ended = subprocess.run(job.evaluation_command, capture_output=True, text=True, check=False)
    assert ended.returncode == InputError.exit_code
    assert str(job.model) in ended.stderr


def test_no_evaluation_is_no_command() -> None:
    assert plan_job(Choices(model="base", gpu_family="cpu", evaluation="none"), ROOT).evaluation_command == []


def test_own_records_are_held_out_by_content_and_settings_reach_the_recipe(tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    mine.write_text('{"instruction": "Who came?", "response": "Ann."}\n' * 40)
    chosen = Choices(model="EleutherAI/pythia-6.9b", gpu_family="h100", records=str(mine), settings="epochs=1 seed=7")
    words = plan_job(chosen, ROOT).tune_words
    recipe = Recipe.load(ROOT / "recipes" / "dolly-v2-7b.yaml", words[2:])
    assert (recipe.records, recipe.epochs, recipe.seed) == ([str(mine)], 1, 7)
    assert (recipe.held_out.split, recipe.held_out.fraction, recipe.warmup_updates) == ("hash", 0.1, None)


@pytest.mark.parametrize(
    ("chosen", "kind", "words"),
    [
        ({"model": "EleutherAI/pythia-6.9b", "gpu_family": "cpu"}, UsageError, "choose model base"),
        ({"num_gpus": "3"}, UsageError, "num_gpus is '3'; choose one of 1, 2, 4, 8"),
        ({"gpu_family": "tpu"}, UsageError, "gpu_family is 'tpu'"),
        ({"model": "gpt2"}, UsageError, "model is 'gpt2'; choose one of EleutherAI/pythia-2.8b"),
        ({"output": ""}, UsageError, "output is empty"),
        ({"settings": "epoch=1"}, InputError, "command line: epoch: unknown key"),
        ({"machines": "2", "num_gpus": "8"}, UsageError, "On several machines all of them must see local_output"),
        (
            {"machines": "2", "num_gpus": "8", **ON_VOLUMES, "records": "/tmp/mine.jsonl"},
            UsageError,
            "must see records (/tmp/mine.jsonl)",
        ),
        (
            {"model": "EleutherAI/pythia-12b", "gpu_family": "t4", "num_gpus": "2"},
            MachineError,
            "dolly-v2-12b-qlora: an adapter is trained by one GPU",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(chosen: dict[str, str], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as told:
        plan_job(Choices(**chosen), ROOT)
    assert words in str(told.value)


def test_several_machines_are_started_by_spark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe lies beside the run, where workers can read it; Spark is told of one process a GPU of all machines."""
    monkeypatch.setattr(databricks, "SHARED", (f"{tmp_path}/",))
    started: list[Any] = []

    class TorchDistributor:
        def __init__(self, **settings: Any) -> None:
            started.append(settings)

        def run(self, function: Any, *words: str) -> None:
            started.extend([function, words])

    for name in ("pyspark", "pyspark.ml", "pyspark.ml.torch", "pyspark.ml.torch.distributor"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["pyspark.ml.torch.distributor"].TorchDistributor = TorchDistributor  # type: ignore[attr-defined]
    chosen = Choices(
        model="EleutherAI/pythia-12b",
        gpu_family="a10",
        num_gpus="8",
        machines="2",
        local_output=str(tmp_path / "work"),
        output=str(tmp_path / "models"),
    )
    job = plan_job(chosen, ROOT)
    job.make_folders()
    job.tune()
    assert started == [{"num_processes": 16, "local_mode": False, "use_gpu": True}, tune_in_a_worker, job.tune_words]
    recipe = tmp_path / "work" / "dolly-v2-12b" / "dolly-v2-12b.yaml"
    assert job.tune_words[1] == str(recipe)
    assert recipe.read_bytes() == (ROOT / "recipes" / "dolly-v2-12b.yaml").read_bytes()


def test_a_folder_that_cannot_be_written_to_is_told_before_tuning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    chosen = Choices(model="base", gpu_family="cpu", local_output=str(tmp_path), output=str(tmp_path / "file"))
    with pytest.raises(MachineError, match=r"file/starter cannot be written to .* Choose another"):
        plan_job(chosen, ROOT).make_folders()


def test_the_repository_is_found_from_inside_and_missed_outside(tmp_path: Path) -> None:
    assert find_repository(ROOT / "notebooks") == ROOT
    with pytest.raises(UsageError, match="create a Git folder"):
        find_repository(tmp_path)


def test_a_command_is_shown_with_its_lines_and_its_failure(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run([sys.executable, "-c", "import os; print(os.getcwd())"], tmp_path)
    assert capsys.readouterr().out.splitlines()[1] == str(tmp_path)
    with pytest.raises(MachineError, match="exit code 3"):
        run([sys.executable, "-c", "raise SystemExit(3)"], tmp_path)


PATIENT = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("saved")))
print("begun", flush=True)
time.sleep(60)
"""
INTERRUPTED = f"""
import sys
from pathlib import Path
from roslin.integrations.databricks import run
try:
    run([sys.executable, "-c", {PATIENT!r}], Path())
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupted_cell_lets_the_run_save_itself() -> None:
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True) as cell:
        assert cell.stdout
        while cell.stdout.readline() != "begun\n":
            time.sleep(0.01)
        cell.send_signal(signal.SIGINT)
        assert cell.stdout.read() == "saved\ninterrupted\n"
