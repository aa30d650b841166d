"""`roslin tune`: a recipe in, a model folder out; or two runs in, and where they part."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from roslin.cli.run_comparison import show_comparison
from roslin.cli.screen import progress_console, result_console
from roslin.errors import RoslinError, UsageError


def tune(
    recipe: Annotated[
        Path, typer.Argument(help="A YAML recipe, or a run's folder: the recipe that it was run by.", metavar="RECIPE")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings that override the recipe, such as learning_rate=1e-5."),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Check the recipe and its records, tune nothing. With the folders of two runs (--check RUN RUN): "
            "compare their curves; exit code 1 when these do not agree.",
        ),
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Drop what an earlier run left in the output folder.")
    ] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="With --check RUN RUN: the most that losses may differ by, in nats (default 1e-4)."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --check RUN RUN: print the comparison as JSON.")
    ] = False,
) -> None:
    """Tune a base model by a recipe. Interrupted, the same command goes on where it was.

    `roslin tune --check RUN RUN` compares two runs instead.
    """
    if check and settings and len(settings) == 1 and "=" not in settings[0]:
        _compare(recipe, Path(settings[0]), tolerance, as_json)
        return
    if tolerance is not None or as_json:
        raise UsageError("--tolerance and --json belong to --check RUN RUN, with the folders of two runs.")
    _tune(recipe, settings or [], check, restart)


def _let_gpu_memory_grow() -> None:
    """Have torch make its pieces of a GPU's memory longer instead of adding new ones: unlike passes leave no gaps then.

    torch reads this when it is first imported. Who has set the allocator's options keeps them.
    """
    if not os.environ.keys() & {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}:
        os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"


def _tune(recipe: Path, settings: list[str], check: bool, restart: bool) -> None:
    _let_gpu_memory_grow()
    from roslin.tune import Interrupted, Recipe
    from roslin.tune.processes import LostProcess, Told, local_rank_here, rank_here
    from roslin.workflows.run_folder import recipe_of
    from roslin.workflows.tune import check_run
    from roslin.workflows.tune import tune as run

    console, is_first = progress_console(), rank_here() == 0
    console.quiet = not is_first
    try:
        loaded = Recipe.load(recipe_of(recipe), settings)
    except RoslinError as error:  # of the processes on a machine, which read the same file, one tells
        if local_rank_here():
            _leave(error.exit_code)
        raise
    if check:
        if is_first:
            check_run(loaded, console)
        return
    try:
        folder = run(loaded, restart=restart, console=console)
    except Interrupted:
        console.print("Stopped, and saved. The same command goes on from here.")
        if not is_first:
            _leave(130)
        raise typer.Exit(130) from None
    except Told as error:
        _leave(error.exit_code)
    except LostProcess as error:
        print(f"roslin: {error}", file=sys.stderr)
        _leave(error.exit_code)
    if not is_first:
        _leave(0)
    typer.echo(folder)


def _leave(code: int) -> NoReturn:
    """End at once, without the interpreter's own end.

    What still waits for a process that is gone would keep this one from ending, and a thread of torch's that has just
    exchanged something would abort it if it came to let go of a tensor meanwhile.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _compare(first: Path, second: Path, tolerance: float | None, as_json: bool) -> None:
    from roslin.workflows.compare_runs import TOLERANCE, compare_runs

    found = compare_runs(first, second, TOLERANCE if tolerance is None else tolerance)
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=1))
    else:
        show_comparison(found, result_console())
    if not found.agrees:
        raise typer.Exit(1)
