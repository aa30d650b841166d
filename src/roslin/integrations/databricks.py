"""Databricks: what the widgets of notebooks/databricks_tune.py ask for, as a recipe and the commands that run it."""

import gc
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch

from roslin.answer import Roslin
from roslin.errors import MachineError, UsageError
from roslin.memory import GPUS, gib
from roslin.model.describe import describe
from roslin.tune import PROBES, Recipe
from roslin.tune.alternatives import lacking, precision_on
from roslin.tune.dolly_15k import NAME as DOLLY_15K
from roslin.tune.plan import gpus_of, plan_run
from roslin.tune.work import work_before_tuning

RECIPES = {
    "EleutherAI/pythia-2.8b": ("dolly-v2-3b", "dolly-v2-3b-24gb", "dolly-v2-3b-lora"),
    "EleutherAI/pythia-6.9b": ("dolly-v2-7b", "dolly-v2-7b-lora", "dolly-v2-7b-qlora"),
    "EleutherAI/pythia-12b": ("dolly-v2-12b", "dolly-v2-12b-80gb", "dolly-v2-12b-qlora"),
    "EleutherAI/gpt-j-6B": ("dolly-v1-6b", "dolly-v1-6b-lora", "dolly-v1-6b-qlora"),
    "base": ("starter",),
}
"""The recipes for a base, by their files' stems: all weights as Dolly had them first, then what needs less memory."""

CPU = "cpu"
"""No GPU: to try the notebook with the small base."""
FAMILIES = (CPU, "t4", "v100", "v100-32", "l4", "a10", "a100-40", "a100", "h100", "h200")
"""The GPUs that clusters have, as `roslin plan --gpu` names them."""
COUNTS = ("1", "2", "4", "8")
MACHINES = ("1", "2", "4")
EVALUATIONS = ("limits", "benchmarks", "none")
SEED = 42
"""Of the answers that are shown."""

LOCAL_DISK = Path("/local_disk0")
"""The fast disk of a Databricks machine, which is gone with the cluster."""
SHARED = ("/dbfs/", "/Volumes/", "/Workspace/")
"""Where the paths that all machines of a cluster see begin."""


@dataclass(frozen=True)
class Choices:
    """The widgets: one field each, with its value before anyone has chosen."""

    model: str = "EleutherAI/pythia-2.8b"
    gpu_family: str = "a10"
    num_gpus: str = "1"
    """Of one machine."""
    machines: str = "1"
    records: str = DOLLY_15K
    """A hub name, or a file: /Volumes/…, /dbfs/…, dbfs:/…"""
    local_output: str = ""
    """Where the run works; when empty, the machine's fast disk or the home folder."""
    output: str = "/dbfs/roslin"
    """Where the result is copied to."""
    run_name: str = ""
    """The recipe's name when empty. The same name again goes on with what was stopped."""
    evaluation: str = "limits"
    settings: str = ""
    """Other settings of the recipe, as on the command line: learning_rate=1e-5 epochs=1"""

    @classmethod
    def offer(cls, widgets: Any) -> None:
        """Make the widgets of a notebook (`dbutils.widgets`)."""
        offered = {
            "model": list(RECIPES),
            "gpu_family": list(FAMILIES),
            "num_gpus": list(COUNTS),
            "machines": list(MACHINES),
            "evaluation": list(EVALUATIONS),
        }
        for each in fields(cls):
            if each.name in offered:
                widgets.dropdown(each.name, each.default, offered[each.name], each.name)
            else:
                widgets.text(each.name, each.default, each.name)

    @classmethod
    def read(cls, widgets: Any) -> Self:
        """What was chosen."""
        return cls(**{each.name: widgets.get(each.name).strip() for each in fields(cls)})


@dataclass(frozen=True)
class Job:
    """A run as it was asked for, with everything that its commands need."""

    recipe: Path
    settings: tuple[str, ...]
    repository: Path
    """Where commands run: the recipes' own paths begin there."""
    folder: Path
    """The run's folder."""
    result: Path
    """Where it is copied to."""
    gpu_family: str
    num_gpus: int
    machines: int
    evaluation: str

    @property
    def processes(self) -> int:
        """One a GPU; one on a CPU."""
        return self.num_gpus * self.machines

    @property
    def model(self) -> Path:
        """The folder that tuning will leave."""
        return self.folder / "model"

    @cached_property
    def tune_words(self) -> tuple[str, ...]:
        """What follows `roslin`, or `python -m roslin`, in each process."""
        return ("tune", str(self.recipe), *self.settings, f"output={self.folder}")

    @property
    def plan_command(self) -> list[str]:
        """Says what the run will need, before anything is loaded."""
        gpus = [] if self.gpu_family == CPU else ["--gpu", self.gpu_family, "--count", str(self.processes)]
        return [*_python("roslin"), "plan", *self.tune_words[1:], *gpus]

    @property
    def tune_command(self) -> list[str]:
        """Tunes on the GPUs of this machine."""
        if self.processes == 1:
            return [*_python("roslin"), *self.tune_words]
        launcher = [*_python("torch.distributed.run"), "--standalone", "--nproc-per-node", str(self.num_gpus)]
        return [*launcher, "-m", "roslin", *self.tune_words]

    @property
    def evaluation_command(self) -> list[str]:
        """Judges the tuned model and writes what it finds into its card; empty where nothing was asked for."""
        begun = [*_python("roslin"), "eval", str(self.model), "--card"]
        return {
            "limits": [*begun, "--limits"],
            "benchmarks": [*begun, "--store", str(self.folder / "roslin-results.sqlite")],
            "none": [],
        }[self.evaluation]

    def make_folders(self) -> None:
        """Make both folders, and see that the result will have a place before hours are spent on it.

        On several machines the recipe is copied beside the run, where all of them can read it. Raises MachineError for
        a folder that cannot be written to.
        """
        for folder in (self.folder, self.result):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                probe = folder / ".roslin-writes-here"
                probe.write_text("")
                probe.unlink()
            except OSError as error:
                raise MachineError(
                    f"{folder} cannot be written to ({error.strerror or error}). Choose another local_output or "
                    "output: a folder under /Volumes/CATALOG/SCHEMA/VOLUME, say."
                ) from None
        if self.machines > 1:
            shutil.copy(self.repository / "recipes" / self.recipe.name, self.recipe)

    def tune(self) -> None:
        """Tune: here by one process a GPU, on several machines by Spark's TorchDistributor.

        Raises MachineError when the command fails; what it printed says why.
        """
        if self.machines == 1:
            run(self.tune_command, self.repository)
            return
        from pyspark.ml.torch.distributor import TorchDistributor

        distributor = TorchDistributor(num_processes=self.processes, local_mode=False, use_gpu=True)
        distributor.run(tune_in_a_worker, *self.tune_words)

    def ask(self, questions: Sequence[str] = PROBES) -> list[str]:
        """The tuned model's answers to the instructions of Dolly's notebook, or to others; lets go of the GPU after."""
        model = Roslin.load(str(self.model))
        answers = [answer.text for answer in model.answer_all(list(questions), seed=SEED)]
        del model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return answers

    def copy_result(self) -> None:
        """Copy model, adapter, log and facts of the run to the result's folder; checkpoints stay behind.

        Raises MachineError when the copy fails.
        """
        try:
            shutil.copytree(
                self.folder,
                self.result,
                dirs_exist_ok=True,
                copy_function=shutil.copyfile,  # volumes take no permissions
                ignore=shutil.ignore_patterns("checkpoints", ".lock"),
            )
        except (OSError, shutil.Error) as error:
            raise MachineError(
                f"Could not copy {self.folder} to {self.result}: {error}. The run is whole in the former; run this "
                "cell again when there is room."
            ) from None


def plan_job(choices: Choices, repository: Path) -> Job:
    """The run that the widgets ask for, by the first recipe of the model that fits the GPUs.

    Raises UsageError for choices that do not go together and MachineError where no recipe fits; each says what to
    choose instead. InputError for settings that no recipe has.
    """
    count, machines = _number(choices, "num_gpus", COUNTS), _number(choices, "machines", MACHINES)
    _refuse_unknown(choices, "gpu_family", FAMILIES)
    _refuse_unknown(choices, "evaluation", EVALUATIONS)
    _refuse_unknown(choices, "model", tuple(RECIPES))
    if choices.gpu_family == CPU and (choices.model != "base" or count * machines > 1):
        raise UsageError(
            "gpu_family cpu is for trying this notebook: choose model base, num_gpus 1 and machines 1, or a GPU."
        )
    local, output = _local_root(choices.local_output), _as_path(choices.output)
    if not str(choices.output):
        raise UsageError("output is empty: give a folder under /Volumes/… or /dbfs/…; the cluster's disks go with it.")
    records = _records(choices.records, repository)
    if machines > 1:
        _refuse_unshared(local_output=str(local), output=output, records=records)
    settings = shlex.split(choices.settings)
    stem, more = _first_that_fits(choices, records, settings, repository, count * machines)
    name = re.sub(r"[^\w.-]+", "_", choices.run_name).strip("._") or stem
    recipe = local / name / f"{stem}.yaml" if machines > 1 else repository / "recipes" / f"{stem}.yaml"
    return Job(
        recipe=recipe,
        settings=more,
        repository=repository,
        folder=local / name,
        result=Path(output) / name,
        gpu_family=choices.gpu_family,
        num_gpus=count,
        machines=machines,
        evaluation=choices.evaluation,
    )


def find_repository(start: Path) -> Path:
    """The clone of Roslin that a folder is in: recipes are in the repository, and in no package.

    Raises UsageError where there is none.
    """
    for folder in (start, *start.parents):
        if (folder / "recipes" / "starter.yaml").is_file():
            return folder
    raise UsageError(
        f"{start} is in no clone of Roslin's repository. In Databricks, create a Git folder from it and open "
        "notebooks/databricks_tune there: the recipes are beside it."
    )


def run(command: Sequence[str], folder: Path) -> None:
    """Run a command and print its lines as they come; interrupted, tell it to end and wait for that.

    Raises MachineError when it fails.
    """
    print("$", shlex.join(["python", *command[1:]]), flush=True)
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    ) as process:
        assert process.stdout
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
        except KeyboardInterrupt:  # what was interrupted is this process; a run saves its state when it is told
            process.terminate()
            print(process.stdout.read(), end="", flush=True)
            raise
    if process.returncode:
        raise MachineError(f"The command above ended with exit code {process.returncode}; its last lines say why.")


def tune_in_a_worker(*words: str) -> None:
    """What Spark runs in each process that it starts: it inherits the variables by which they find each other."""
    subprocess.run([*_python("roslin"), *words], check=True)


def _python(module: str) -> list[str]:
    return [sys.executable, "-m", module]


def _number(choices: Choices, name: str, offered: Sequence[str]) -> int:
    _refuse_unknown(choices, name, offered)
    return int(getattr(choices, name))


def _refuse_unknown(choices: Choices, name: str, offered: Sequence[str]) -> None:
    value = getattr(choices, name)
    if value not in offered:
        raise UsageError(f"{name} is {value!r}; choose one of {', '.join(offered)}.")


def _refuse_unshared(**paths: str) -> None:
    wrong = [f"{name} ({path})" for name, path in paths.items() if path != DOLLY_15K and not path.startswith(SHARED)]
    if wrong:
        raise UsageError(
            f"On several machines all of them must see {', '.join(wrong)}: give paths that begin with "
            f"{', '.join(SHARED[:2])}."
        )


def _as_path(text: str) -> str:
    """Spark's name of a DBFS file as the path that every program can open."""
    return re.sub(r"^dbfs:/+", "/dbfs/", text)


def _records(given: str, repository: Path) -> str:
    """Hub name or path of the records; one of the repository's own files by its whole path."""
    inside = repository / _as_path(given)
    return str(inside) if given and inside.is_file() else _as_path(given)


def _local_root(given: str) -> Path:
    if given:
        return Path(_as_path(given))
    return (LOCAL_DISK if LOCAL_DISK.is_dir() else Path.home()) / "roslin"


def _first_that_fits(
    choices: Choices, records: str, settings: Sequence[str], repository: Path, processes: int
) -> tuple[str, tuple[str, ...]]:
    """Stem and settings of the first of the model's recipes that fits. Raises MachineError where none does."""
    reasons = []
    for stem in RECIPES[choices.model]:
        path = repository / "recipes" / f"{stem}.yaml"
        told = (f"records={records}", *_of_own_records(path, records), *settings)
        reason = _why_not(Recipe.load(path, told), choices.gpu_family, processes)
        if reason is None:
            return stem, told
        reasons.append(f"{stem}: {reason}")
    raise MachineError(
        f"No recipe for {choices.model} runs on {processes} × {choices.gpu_family}. {'; '.join(reasons)}. "
        "Choose another GPU, more of them, or a smaller model; `roslin plan RECIPE` lists the GPUs that would do."
    )


def _of_own_records(path: Path, records: str) -> list[str]:
    """Dolly's split and warm-up are of Dolly's records: of others a tenth is held out, by content."""
    is_dollys = Recipe.load(path).held_out.split == "dolly"
    own = ["held_out={fraction: 0.1}", "warmup_updates=null"]
    return own if is_dollys and records != DOLLY_15K else []


def _why_not(recipe: Recipe, family: str, processes: int) -> str | None:
    """Why a recipe does not run on so many GPUs; None where it does."""
    if family == CPU:
        return None
    if recipe.adapter is not None and processes > 1:
        return "an adapter is trained by one GPU"
    machine = gpus_of(family, processes)
    lacks = lacking(recipe, GPUS[family])
    if lacks:
        return f"the GPU {lacks}"
    [model] = describe([recipe.model])
    work, _ = work_before_tuning(recipe, model.folder)
    plan = plan_run(recipe, model.config, precision_on(recipe, machine), work, machine)
    return None if plan.fits else f"it needs {gib(plan.total)} GiB a GPU, of {gib(plan.memory)}"
