"""`roslin plan`: whether tuning or answering fits a GPU, with what settings, how fast, and which GPUs would do."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import orjson
import typer

from roslin.cli.screen import result_console
from roslin.errors import MachineError, UsageError

if TYPE_CHECKING:
    from roslin.memory import Kept
    from roslin.model.describe import Description
    from roslin.tune.plan import Machine
    from roslin.tune.recipe import Recipe

DOES_NOT_FIT = MachineError.exit_code


class GpuName(StrEnum):
    """The GPUs that can be planned for."""

    T4 = "t4"
    V100 = "v100"
    V100_32 = "v100-32"
    L4 = "l4"
    A10 = "a10"
    RTX_4090 = "rtx-4090"
    A100_40 = "a100-40"
    A100 = "a100"
    H100 = "h100"
    H200 = "h200"
    B200 = "b200"


def plan(
    source: Annotated[
        str, typer.Argument(metavar="RECIPE|MODEL", help="A YAML recipe; or a model, with Dolly's recipe for it.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings that override the recipe, as in `roslin tune`."),
    ] = None,
    gpu: Annotated[GpuName | None, typer.Option(help="For which GPU, instead of what this machine has.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many of them share the run.")] = 1,
    serve: Annotated[bool, typer.Option("--serve", help="Plan to answer with the model instead of tuning it.")] = False,
    length: Annotated[
        int | None,
        typer.Option(min=1, help="With --serve: tokens of a prompt with its answer (default 2048, or all positions)."),
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="With --serve: answers at once (default 1).")] = None,
    draft: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="With --serve: a draft model beside it, as in `roslin ask` (in bf16, beside fp32 in fp32).",
        ),
    ] = None,
    cache: Annotated[
        str | None, typer.Option(help="With --serve: keys and values in auto (the default) or fp8, as in `roslin ask`.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, memory in bytes.")] = False,
) -> None:
    """Say whether it will fit: memory by part, settings, predicted speed and time, and which GPUs would do.

    Neither the model nor the records need be here. Ends with 3 where it does not fit.
    """
    from roslin.model.describe import describe

    if serve:
        from roslin.cli.plan_serving import serving, show_serving

        model, *drafts = describe([_model_of(source, settings), *([draft] if draft else [])])
        beside = drafts[0] if drafts else None
        asked = serving(model, _machine(gpu, count), length, batch or 1, beside, _kept(cache))
        fits = show_serving(asked, as_json)
    elif length or batch or draft or cache:
        raise UsageError("--length, --batch, --draft and --cache belong to --serve.")
    else:
        recipe = _recipe(source, settings)
        fits = _plan_tuning(recipe, describe([recipe.model])[0], _machine(gpu, count), as_json)
    if not fits:
        raise typer.Exit(DOES_NOT_FIT)


def _kept(cache: str | None) -> "Kept":
    from roslin.memory import Kept

    kept: dict[str | None, Kept] = {None: "auto", **{name: name for name in get_args(Kept)}}
    if cache not in kept:
        raise UsageError(f"--cache is {cache!r}; it must be {' or '.join(get_args(Kept))}.")
    return kept[cache]


def _plan_tuning(recipe: "Recipe", model: "Description", machine: "Machine", as_json: bool) -> bool:
    from roslin.cli.plan_text import as_object, show
    from roslin.tune.alternatives import look_ahead

    outlook = look_ahead(recipe, model.config, model.folder, machine)
    if as_json:
        print_json(as_object(outlook))
    else:
        show(outlook, result_console())
    return outlook.fits


def print_json(found: dict[str, Any]) -> None:
    """Print one line of JSON."""
    sys.stdout.buffer.write(orjson.dumps(found, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


def _is_recipe(source: str) -> bool:
    return Path(source).suffix in (".yaml", ".yml")


def _model_of(source: str, settings: list[str] | None) -> str:
    return _recipe(source, settings).model if _is_recipe(source) else source


def _recipe(source: str, settings: list[str] | None) -> "Recipe":
    from roslin.tune.dolly_15k import NAME
    from roslin.tune.recipe import Recipe

    if _is_recipe(source):
        return Recipe.load(Path(source), settings or [])
    if settings:
        raise UsageError(f"{settings[0]}: settings change a recipe, and {source} is a model. Give a recipe (.yaml).")
    held_out = {"split": "dolly", "count": 200}
    return Recipe.parse({"model": source, "records": [NAME], "output": "runs/planned", "held_out": held_out})


def _machine(gpu: GpuName | None, count: int) -> "Machine":
    import torch

    from roslin.tune.plan import gpus_of, machine_of

    if gpu is not None:
        return gpus_of(gpu.value, count)
    return machine_of(torch.device("cuda" if torch.cuda.is_available() else "cpu"), count)
