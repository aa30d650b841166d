"""A plan for answering with a model: memory by part, and how many answers at once which GPU has room for."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from rich import box
from rich.table import Table
from rich.text import Text

from roslin.cli.screen import result_console
from roslin.errors import InputError
from roslin.memory import BLOCK_TOKENS, GPUS, USABLE, Answering, Precision, answering, cache_tokens, gib
from roslin.memory.gpus import COPY_REACH

if TYPE_CHECKING:
    from roslin.memory import Device, Gpu
    from roslin.model import ModelConfig
    from roslin.model.describe import Description
    from roslin.tune.plan import Machine

SERVED: tuple[Precision, ...] = ("bf16", "int8", "int4")
"""What GPUs are compared in."""
MOST = 4096
"""Answers at once that are looked for."""
LENGTH = 2048
"""Tokens of a prompt with its answer, where they are not given."""


def show_serving(model: "Description", machine: "Machine", length: int | None, batch: int, as_json: bool) -> bool:
    """Print what answering takes; whether a machine has room for it in bf16.

    Raises InputError for a length beyond the model's positions.
    """
    config = model.config
    if length is not None and length > config.positions:
        raise InputError(f"--length is {length:,}, and {model.name} has {config.positions:,} positions.")
    length = length or min(LENGTH, config.positions)
    if not machine.on_gpu:
        machine = replace(machine, memory=machine.memory // machine.count)  # processes on one machine share it
    needs = {precision: _needs(config, precision, length, batch, machine) for precision in get_args(Precision)}
    if as_json:
        from roslin.cli.plan import print_json

        print_json(_as_object(model, machine, length, batch, needs))
    else:
        _show(model, machine, length, batch, needs)
    return _fits(model, machine, length, batch, "bf16", needs["bf16"])


def _fits(
    model: "Description", machine: "Machine", length: int, batch: int, precision: Precision, needs: Answering
) -> bool:
    """Whether the machine has room for all, and the engine would give the cache as much of it."""
    blocks = batch * -(-length // BLOCK_TOKENS)
    room = _cache_tokens(model, machine, batch, precision, needs)
    return needs.total <= int(machine.memory * USABLE) and blocks * BLOCK_TOKENS <= room


def _cache_tokens(model: "Description", machine: "Machine", batch: int, precision: Precision, needs: Answering) -> int:
    """How many tokens the engine's cache would hold at most, were all memory free but for the weights."""
    size = 4 if precision == "fp32" or not machine.on_gpu else 2
    device: Device = "cuda" if machine.on_gpu else "cpu"
    sizes = replace(model.config.shared(machine.count), vocab_rows=model.config.vocab_rows)
    return cache_tokens(sizes, size, batch, machine.memory - needs.weights, machine.memory, device)


def _needs(config: "ModelConfig", precision: Precision, length: int, batch: int, machine: "Machine") -> Answering:
    return answering(config, precision, length, batch, "cuda" if machine.on_gpu else "cpu", machine.count)


def _as_object(
    model: "Description", machine: "Machine", length: int, batch: int, needs: dict[Precision, Answering]
) -> dict[str, Any]:
    usable = int(machine.memory * USABLE)
    return {
        "model": model.name,
        "machine": machine.name,
        "count": machine.count,
        "memory": machine.memory,
        "usable": usable,
        "positions": length,
        "batch": batch,
        "answering": {
            precision: found.parts()
            | {
                "total": found.total,
                "fits": _fits(model, machine, length, batch, precision, found),
                "cache_tokens": _cache_tokens(model, machine, batch, precision, found),
            }
            for precision, found in needs.items()
        },
        "most_answers_at_once": {
            gpu.name: {
                precision: most_at_once(model.config, precision, length, gpu, machine.count) for precision in SERVED
            }
            for gpu in GPUS.values()
        },
    }


def _show(model: "Description", machine: "Machine", length: int, batch: int, needs: dict[Precision, Answering]) -> None:
    console = result_console()
    usable = int(machine.memory * USABLE)
    answers = "One answer" if batch == 1 else f"{batch:,} answers at once"
    which, each = ("it", "") if machine.count == 1 else ("each", f", on each of {machine.count} that hold it together")
    console.print(Text(f"{answers} of {length:,} tokens with the prompt, from {model.name}, in GiB{each}:"))
    for precision, found in needs.items():
        verdict = "fits" if _fits(model, machine, length, batch, precision, found) else "does not fit"
        console.print(Text(f"  {precision}: {found}; {verdict} {machine.name} ({gib(usable)} of {which} can be used)"))
    room = _cache_tokens(model, machine, batch, "bf16", needs["bf16"])
    full = room // (-(-model.config.positions // BLOCK_TOKENS) * BLOCK_TOKENS)
    console.print(
        Text(f"In bf16 the cache would hold {room:,} tokens: {full:,} of {batch:,} answers at the model's full length.")
    )
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    gpus = "GPU" if machine.count == 1 else f"{machine.count} ×"
    for heading in (gpus, *(f"answers at once\n{precision}" for precision in SERVED), "tokens/s of one\nbf16, at most"):
        table.add_column(heading, justify="left" if heading == gpus else "right")
    for gpu in GPUS.values():
        most = [most_at_once(model.config, precision, length, gpu, machine.count) for precision in SERVED]
        limit = f"{gpu.bandwidth * COPY_REACH / needs['bf16'].weights:,.0f}" if most[0] else "–"
        table.add_row(gpu.title, *(f"{count:,}" if count else "–" for count in most), limit)
    console.print(table)
    console.print(
        Text("int8 and int4 are models that `roslin quantize` has written: what they cost is in docs/quantize.md.")
    )


def most_at_once(config: "ModelConfig", precision: Precision, length: int, gpu: "Gpu", count: int = 1) -> int:
    """How many answers of this length so many GPUs together have room for at once; 0 where not one."""
    usable = int(gpu.memory * USABLE)
    low, high = 0, MOST
    while low < high:
        middle = (low + high + 1) // 2
        fits = answering(config, precision, length, middle, processes=count).total <= usable
        low, high = (middle, high) if fits else (low, middle - 1)
    return low
