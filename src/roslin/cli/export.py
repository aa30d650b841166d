"""`roslin export`: a model written in another format, and kept only if it is still the model."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
import typer

from roslin.cli.screen import progress_console

if TYPE_CHECKING:
    from roslin.publish.export import Exported

Format = Literal["hf", "gguf", "ctranslate2", "merged"]
Dtype = Literal["float32", "bfloat16", "float16"]
Quantize = Literal["f16", "q8_0", "q4_0"]


def export(
    model: Annotated[str, typer.Argument(help="A model: a folder, an adapter, a file, base, smollm2, or a hub name.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make; it must not hold anything yet.")],
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            help="hf: transformers' folder. gguf: one file for llama.cpp. ctranslate2: by its own converter. merged: "
            "an adapter and its base as one model, in transformers' folder.",
        ),
    ] = "hf",
    dtype: Annotated[
        Dtype | None, typer.Option(help="Of the weights, instead of the model's own. Not for gguf.")
    ] = None,
    quantize: Annotated[Quantize | None, typer.Option(help="For gguf: how matrices are packed (f16).")] = None,
    trim_vocab: Annotated[
        bool,
        typer.Option(
            "--trim-vocab",
            help="Leave out rows beyond the tokenizer's, as dolly-v2 was published. gguf and ctranslate2 always do.",
        ),
    ] = False,
    revision: Annotated[str | None, typer.Option(help="Version on the hub.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a model in a format that others run, and compare what was written with the model.

    The folder appears only if logits, weights and tokenizer are the model's, but for the rounding of the format.
    """
    from roslin.answer.device import DTYPES
    from roslin.publish.export import export as run
    from roslin.publish.export import format_of

    console = progress_console()
    how = format_of(format_, DTYPES[dtype] if dtype else None, quantize)
    done = run(
        model,
        folder,
        how,
        revision=revision,
        trim=trim_vocab,
        say=lambda text: console.print(text, markup=False),
    )
    if as_json:
        typer.echo(orjson.dumps(as_object(done)))
    else:
        typer.echo(f"{done.folder}: {done.size / 1e6:,.1f} MB\nparity: {done.parity}")


def as_object(done: "Exported") -> dict[str, Any]:
    """All that is known of an export, for JSON."""
    parity = done.parity
    return {"folder": str(done.folder), "bytes": done.size, "parity": asdict(parity)}
