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
    form: Annotated[
        Literal["int8", "fp8", "int4"],
        typer.Option(
            "--format",
            help="Of the weights. int8: nearly the model's own answers. int4: half the size again. fp8: the size of "
            "int8, and the fastest for many requests on a GPU that multiplies it (H100, L4, RTX 40 and later).",
        ),
    ] = "int8",
    group: Annotated[int, typer.Option(help="Of int4: how many weights share a scale (32, 64 or 128).")] = 64,
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
        form,
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
