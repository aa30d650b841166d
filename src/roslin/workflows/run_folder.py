"""A run's output folder: what a run writes there, and what may be removed from it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from roslin.errors import InputError, MachineError
from roslin.model import find_model
from roslin.model.adapter import base_of, is_adapter
from roslin.tune import Prepared, Recipe
from roslin.tune.measurements import FILE as HELD_OUT
from roslin.tune.precision import name_of
from roslin.tune.whole import write_whole

MODEL, ADAPTER = "model", "adapter"
FOLDERS = (
    "checkpoints",
    "tensorboard",
    "wandb",
    "trackers",
    MODEL,
    f"{MODEL}.partial",
    ADAPTER,
    f"{ADAPTER}.partial",
)
RECIPE_COPY = "run.yaml"
LOG = "log.jsonl"
FACTS = "facts.json"
PLAN = "plan.json"
FILES = (
    LOG,
    "log.partial",
    RECIPE_COPY,
    f"{RECIPE_COPY}.partial",
    FACTS,
    f"{FACTS}.partial",
    PLAN,
    f"{PLAN}.partial",
    HELD_OUT,
    f"{HELD_OUT}.partial",
)
LOCK = ".lock"
"""Held by the process that works in the folder; the system frees it when that process dies, however it dies."""


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Work in a folder that is there. Raises InputError while another process does, MachineError without a lock."""
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"Another run is working in {folder}. Wait for it, stop it, or give another folder.") from None
    except (OSError, NotImplementedError) as error:
        raise MachineError(f"{folder / LOCK} cannot be locked ({error}). Give another folder.") from None
    try:
        yield
    finally:
        lock.release()


def drop_run(output: Path) -> None:
    """Remove what a run wrote into its output folder, and nothing else that stands there."""
    for name in FOLDERS:
        shutil.rmtree(output / name, ignore_errors=True)
    for name in FILES:
        (output / name).unlink(missing_ok=True)


def check_droppable(recipe: Recipe) -> None:
    """Raise InputError when the recipe needs what `drop_run` would remove: its model, or files of records."""
    doomed = [(recipe.output / name).resolve() for name in (*FOLDERS, *FILES)]
    needed = [
        f"  {path}" for path in _local_inputs(recipe) if any(path.resolve().is_relative_to(place) for place in doomed)
    ]
    if needed:
        lines = "\n".join(dict.fromkeys(needed))
        raise InputError(
            f"Dropping the run in {recipe.output} would remove what the recipe needs:\n{lines}\n"
            "Give another output=…, or move these out of it."
        )


def _local_inputs(recipe: Recipe) -> Iterator[Path]:
    model = find_model(recipe.model, recipe.revision)
    yield model
    if is_adapter(model):
        yield base_of(model)
    for words in [*recipe.records, *([recipe.held_out.file] if recipe.held_out.file else [])]:
        path = Path(words).expanduser().absolute()
        yield path
        yield from Path(path.anchor).glob(str(path.relative_to(path.anchor)))


def recipe_of(path: Path) -> Path:
    """The recipe's file: of a run's folder, the run's own copy. Raises InputError for a folder that has none."""
    if not path.is_dir():
        return path
    if not (path / RECIPE_COPY).is_file():
        raise InputError(f"{path}: a folder without {RECIPE_COPY}. Give a recipe's file, or a run's folder.")
    return path / RECIPE_COPY


def write_recipe(recipe: Recipe, prepared: Prepared) -> None:
    """Write the run's own copy of its recipe, with what was chosen of that which decides its numbers.

    Raises MachineError when it cannot be written.
    """
    write_whole(recipe.output / RECIPE_COPY, recipe_yaml(_as_chosen(recipe, prepared)))


def _as_chosen(recipe: Recipe, prepared: Prepared) -> Recipe:
    """Another machine, left to choose, may choose otherwise. Gradients of one pass, which have no sum, stay unsaid."""
    plan = prepared.plan
    gradients = recipe.optimizer.gradients if plan.settings.one_pass else plan.gradients
    optimizer = recipe.optimizer.model_copy(update={"moments": plan.moments, "gradients": gradients})
    return recipe.model_copy(update={"optimizer": optimizer, "precision": name_of(prepared.decoder.dtype)})


def recipe_yaml(recipe: Recipe) -> str:
    """The whole recipe, defaults too, as YAML that `roslin tune` reads: defaults may change, a run does not."""
    return yaml.safe_dump(recipe_values(recipe), sort_keys=False, allow_unicode=True, width=100)


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """The same as plain values."""
    values = recipe.model_dump(mode="json")
    if recipe.held_out.file:
        values["held_out"] = {"file": recipe.held_out.file}  # a recipe names a file or a split, not both
    return values
