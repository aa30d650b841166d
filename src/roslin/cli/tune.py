"""`roslin tune`: a recipe in, a model folder out."""

from pathlib import Path
from typing import Annotated

import typer

from roslin.cli.screen import progress_console


def tune(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings that override the recipe, such as learning_rate=1e-5."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Check the recipe and its records, tune nothing.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Drop what an earlier run left in the output folder.")
    ] = False,
) -> None:
    """Tune a base model by a recipe. Interrupted, the same command goes on where it was."""
    from roslin.tune import Interrupted, Recipe
    from roslin.workflows.tune import check_run
    from roslin.workflows.tune import tune as run

    console = progress_console()
    loaded = Recipe.load(recipe, settings or [])
    if check:
        check_run(loaded, console)
        return
    try:
        folder = run(loaded, restart=restart, console=console)
    except Interrupted:
        console.print("Stopped, and saved. The same command goes on from here.")
        raise typer.Exit(130) from None
    typer.echo(folder)
