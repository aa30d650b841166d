"""A plan for answering with a model: memory by part, and how many answers at once which GPU has room for."""

from typing import TYPE_CHECKING, Any, get_args

from rich import box
from rich.table import Table
from rich.text import Text

from roslin.cli.screen import result_console
from roslin.errors import InputError
from roslin.memory import GPUS, USABLE, Answering, Precision, answering, gib
from roslin.memory.gpus import COPY_REACH

if TYPE_CHECKING:
    from roslin.memory import Gpu
    from roslin.model import ModelConfig
    from roslin.model.describe import Description
    from roslin.tune.plan import Machine

MOST = 4096
"""Answers at once that are looked for."""
LENGTH = 2048
"""Tokens of a prompt with its answer, where they are not given."""


def show_serving(model: "Description", machine: "Machine", length: int | None, batch: int, as_json: bool) -> bool:
    """Print what answering takes; whether a machine has room for it in bf16, for 4-bit weights are unpacked here.

    Raises InputError for a length beyond the model's positions.
    """
    config = model.config
    if length is not None and length > config.positions:
        raise InputError(f"--length is {length:,}, and {model.name} has {config.positions:,} positions.")
    length = length or min(LENGTH, config.positions)
    needs = {precision: _needs(config, precision, length, batch, machine.on_gpu) for precision in get_args(Precision)}
    usable = int(machine.memory * USABLE)
    if as_json:
        from roslin.cli.plan import print_json

        print_json(_as_object(model, machine, length, batch, needs))
    else:
        _show(model, machine, length, batch, needs)
    return needs["bf16"].total <= usable


def _needs(config: "ModelConfig", precision: Precision, length: int, batch: int, on_gpu: bool) -> Answering:
    return answering(config, precision, length, batch, "cuda" if on_gpu else "cpu")


def _as_object(
    model: "Description", machine: "Machine", length: int, batch: int, needs: dict[Precision, Answering]
) -> dict[str, Any]:
    usable = int(machine.memory * USABLE)
    return {
        "model": model.name,
        "machine": machine.name,
        "memory": machine.memory,
        "usable": usable,
        "positions": length,
        "batch": batch,
        "answering": {
            precision: found.parts() | {"total": found.total, "fits": found.total <= usable}
            for precision, found in needs.items()
        },
        "most_answers_at_once": {
            gpu.name: {precision: most_at_once(model.config, precision, length, gpu) for precision in ("bf16", "nf4")}
            for gpu in GPUS.values()
        },
    }


def _show(model: "Description", machine: "Machine", length: int, batch: int, needs: dict[Precision, Answering]) -> None:
    console = result_console()
    usable = int(machine.memory * USABLE)
    answers = "One answer" if batch == 1 else f"{batch:,} answers at once"
    console.print(Text(f"{answers} of {length:,} tokens with the prompt, from {model.name}, in GiB:"))
    for precision, found in needs.items():
        verdict = "fits" if found.total <= usable else "does not fit"
        console.print(Text(f"  {precision}: {found}; {verdict} {machine.name} ({gib(usable)} of it can be used)"))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for heading in ("GPU", "answers at once\nbf16", "answers at once\n4-bit", "tokens/s of one\nbf16, at most"):
        table.add_column(heading, justify="left" if heading == "GPU" else "right")
    for gpu in GPUS.values():
        most = [most_at_once(model.config, precision, length, gpu) for precision in ("bf16", "nf4")]
        limit = f"{gpu.bandwidth * COPY_REACH / needs['bf16'].weights:,.0f}" if most[0] else "–"
        table.add_row(gpu.title, *(f"{count:,}" if count else "–" for count in most), limit)
    console.print(table)
    console.print(
        Text("Roslin unpacks 4-bit weights to answer: what is said of 4 bits holds for programs that do not.")
    )


def most_at_once(config: "ModelConfig", precision: Precision, length: int, gpu: "Gpu") -> int:
    """How many answers of this length a GPU has room for at once; 0 where not one."""
    usable = int(gpu.memory * USABLE)
    low, high = 0, MOST
    while low < high:
        middle = (low + high + 1) // 2
        fits = answering(config, precision, length, middle).total <= usable
        low, high = (middle, high) if fits else (low, middle - 1)
    return low
