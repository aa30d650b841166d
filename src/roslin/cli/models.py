"""`roslin models`: which models there are, whether they are here, and what memory they need."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import orjson
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from roslin.cli.screen import result_console

if TYPE_CHECKING:
    from roslin.memory import Answering, Tuning
    from roslin.model.describe import Description

WIDE = 108
"""Columns from which on all of a model stands in one line; where there are fewer, it takes two."""

Device = Literal["cuda", "cpu"]


def models(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Model folders or hub names to describe, instead of all known models."),
    ] = None,
    length: Annotated[
        int, typer.Option(min=1, help="Tokens of a prompt with its answer, and of a row in tuning.")
    ] = 2048,
    batch: Annotated[int, typer.Option(min=1, help="Answers at once.")] = 1,
    device: Annotated[Device, typer.Option(help="Whose memory: a GPU's or a CPU's.")] = "cuda",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list, with memory by part in bytes.")] = False,
) -> None:
    """List the models that Roslin knows: family, licence, size, whether they are here, and the memory they need.

    The network is not asked: a model of the hub is here when the hub's cache on this machine has it.
    """
    from roslin.model.describe import KNOWN, describe

    found = [needs_of(model, length, batch, device) for model in describe(names or KNOWN)]
    if as_json:
        sys.stdout.buffer.write(orjson.dumps([as_object(needs) for needs in found], option=orjson.OPT_APPEND_NEWLINE))
        sys.stdout.buffer.flush()
    else:
        show(found, caption(length, batch, device), result_console())


@dataclass(frozen=True)
class Needs:
    """A model, and the memory that it needs to answer, by precision, and to be tuned, by method."""

    model: "Description"
    answering: "dict[str, Answering]"
    tuning: "dict[str, Tuning]"


def needs_of(model: "Description", length: int, batch: int, device: Device) -> Needs:
    """What a model needs for texts of `length` tokens, or as many as it has positions."""
    from roslin.memory import Method, Precision, answering, tuning

    config = model.config
    length = min(length, config.positions)
    return Needs(
        model,
        {precision: answering(config, precision, length, batch, device) for precision in get_args(Precision)},
        {method: tuning(config, method, length, device) for method in get_args(Method)},
    )


def as_object(needs: Needs) -> dict[str, Any]:
    """All that is known of a model, for JSON."""
    model, config = needs.model, needs.model.config
    return {
        "name": model.name,
        "architecture": model.architecture,
        "family": config.family,
        "licence": model.licence,
        "parameters": config.parameter_count,
        "positions": config.positions,
        "vocab_rows": config.vocab_rows,
        "tokens": model.tokens,
        "here": model.here,
        "folder": None if model.folder is None else str(model.folder),
        "note": model.note,
        "answering": {key: found.parts() | {"total": found.total} for key, found in needs.answering.items()},
        "tuning": {key: found.parts() | {"total": found.total} for key, found in needs.tuning.items()},
    }


def show(found: Sequence[Needs], said_below: str, console: Console) -> None:
    """Print the models as a table that fits the console, and below it what is to be noted."""
    wide = console.width >= WIDE
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("model", overflow="fold")
    for heading in ("family", "licence", "positions") if wide else ():
        table.add_column(heading, justify="right" if heading == "positions" else "left")
    table.add_column("size", justify="right")
    table.add_column("here")
    for heading in _memory(found[0]):
        table.add_column(heading, justify="right")
    for needs in found:
        table.add_row(*(Text(cell) for cell in _cells(needs, wide)))
    console.print(table)
    for text in (said_below, *(f"{needs.model.name}: {needs.model.note}." for needs in found if needs.model.note)):
        console.print(Text(text))


def caption(length: int, batch: int, device: Device) -> str:
    """What the figures are of."""
    machine = "a GPU" if device == "cuda" else "a CPU"
    answers = "one answer" if batch == 1 else f"{batch:,} answers at once"
    return (
        f"Memory on {machine} in GiB, to answer: {answers} of {length:,} tokens with the prompt; to tune: rows of "
        f"{length:,} tokens; full: every weight, in bf16 with fp32 masters; LoRA, QLoRA: rank 16 beside bf16 or 4-bit "
        "weights. The driver and gaps between tensors take some more. --json gives it by part, and for fp32."
    )


def _memory(needs: Needs) -> dict[str, int]:
    """Bytes by the headings of the table."""
    return {
        "answer\nbf16": needs.answering["bf16"].total,
        "answer\nint4": needs.answering["int4"].total,
        "tune\nfull": needs.tuning["bf16"].total,
        "tune\nLoRA": needs.tuning["lora"].total,
        "tune\nQLoRA": needs.tuning["qlora"].total,
    }


def _cells(needs: Needs, wide: bool) -> list[str]:
    from roslin.memory import gib

    model, config = needs.model, needs.model.config
    said = [config.family, model.licence or "unknown", f"{config.positions:,}"]
    head = [model.name, *said] if wide else [f"{model.name}\n{', '.join(said)}"]
    return [*head, _size(config.parameter_count), model.here, *map(gib, _memory(needs).values())]


def _size(parameters: int) -> str:
    if parameters < 10**9:
        return f"{parameters / 10**6:.0f} M"
    return f"{parameters / 10**9:.1f} B"
