"""`roslin quantize`: a model in 8 or 4 bits, for answering."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import orjson
import typer

from roslin.cli.screen import progress_console


def quantize(
    model: Annotated[str, typer.Argument(help="A model: a folder, a file, base, or a hub name.")],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make; it must not hold anything yet.")],
    bits: Annotated[
        Literal["8", "4"],
        typer.Option(help="Of each weight in the layers. 8: nearly the model's own answers. 4: half the size again."),
    ] = "8",
    group: Annotated[int, typer.Option(help="Of 4 bits: how many weights share a scale (32, 64 or 128).")] = 64,
    revision: Annotated[str | None, typer.Option(help="Version on the hub.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a model with its weights in 8 or 4 bits, to answer faster and in less memory.

    What is written is a model folder like any other: ask, serve and eval take it, without the original.
    """
    from roslin.publish.quantise import quantise_model

    console = progress_console()
    done = quantise_model(
        model,
        folder,
        8 if bits == "8" else 4,
        group=group,
        revision=revision,
        say=lambda text: console.print(text, markup=False),
    )
    if as_json:
        typer.echo(orjson.dumps(asdict(done) | {"folder": str(done.folder)}))
    else:
        share = done.bytes / done.source_bytes
        typer.echo(
            f"{done.folder}: {done.bytes / 1e6:,.1f} MB, {share:.0%} of the {done.source_bytes / 1e6:,.1f} MB "
            f'before\nTry it: roslin ask {done.folder} "…"'
        )
