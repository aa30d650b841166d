"""A plan for answering with a model: memory by part, and how many answers at once which GPU has room for."""

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, get_args

from rich import box
from rich.table import Table
from rich.text import Text

from roslin.cli.screen import result_console
from roslin.errors import InputError, MachineError
from roslin.memory import (
    BLOCK_TOKENS,
    GPUS,
    USABLE,
    Answering,
    Kept,
    Precision,
    answering,
    cache_tokens,
    gib,
    token_bytes,
)
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


@dataclass(frozen=True)
class Serving:
    """What is to be answered with, how much of it at once, and where."""

    model: "Description"
    draft: "Description | None"
    cache: Kept
    machine: "Machine"
    length: int
    """Tokens of a prompt with its answer."""
    batch: int

    @cached_property
    def needs(self) -> dict[Precision, Answering]:
        """Memory by part, by precision."""
        config, machine = self.model.config, self.machine
        device: Device = "cuda" if machine.on_gpu else "cpu"
        draft = self.draft.config if self.draft else None
        found = partial(answering, config, positions=self.length, batch=self.batch, device=device, draft=draft)
        return {each: found(each, processes=machine.count, cache=self.cache) for each in get_args(Precision)}

    def fits(self, precision: Precision) -> bool:
        """Whether the machine has room for all, and the engine would give the cache as much of it."""
        blocks = self.batch * -(-self.length // BLOCK_TOKENS)
        enough = self.needs[precision].total <= int(self.machine.memory * USABLE)
        return enough and blocks * BLOCK_TOKENS <= self.cache_tokens(precision)

    def cache_tokens(self, precision: Precision) -> int:
        """How many tokens the engine's cache would hold at most, were all memory free but for the weights."""
        config, needs, memory = self.model.config, self.needs[precision], self.machine.memory
        size = 4 if precision == "fp32" else 2
        return cache_tokens(
            replace(config.shared(self.machine.count), vocab_rows=config.vocab_rows),
            size if self.machine.on_gpu else 4,  # a CPU computes in fp32 between the products
            self.batch,
            memory - needs.weights - needs.draft_weights,
            memory,
            "cuda" if self.machine.on_gpu else "cpu",
            kept=1 if self.cache == "fp8" else size,
            beside=token_bytes(self.draft.config, size) if self.draft else 0,
        )

    def most_at_once(self, precision: Precision, gpu: "Gpu") -> int:
        """How many such answers so many of that GPU together have room for at once; 0 where not one, or not so."""
        if self.missing_on(gpu):
            return 0
        draft = self.draft.config if self.draft else None
        return most_at_once(self.model.config, precision, self.length, gpu, self.machine.count, draft, self.cache)

    def missing_on(self, gpu: "Gpu | None") -> str:
        """What is asked for and a GPU cannot, in words that name the remedy; nothing where it can all."""
        if gpu is not None and self.cache == "fp8" and not gpu.fp8:
            return f"{gpu.title} has no fp8 (L4, RTX 40, H100 and later have): leave --cache out."
        if gpu is not None and self.draft is not None and not gpu.bf16:
            return f"{gpu.title} computes in fp16, in which a wrong guess could overflow: leave --draft out."
        return ""


def most_at_once(
    config: "ModelConfig",
    precision: Precision,
    length: int,
    gpu: "Gpu",
    count: int = 1,
    draft: "ModelConfig | None" = None,
    cache: Kept = "auto",
) -> int:
    """How many answers of this length so many GPUs together have room for at once; 0 where not one."""
    usable = int(gpu.memory * USABLE)
    low, high = 0, MOST
    while low < high:
        middle = (low + high + 1) // 2
        needs = answering(config, precision, length, middle, processes=count, draft=draft, cache=cache)
        low, high = (middle, high) if needs.total <= usable else (low, middle - 1)
    return low


def serving(
    model: "Description",
    machine: "Machine",
    length: int | None,
    batch: int,
    draft: "Description | None" = None,
    cache: Kept = "auto",
) -> Serving:
    """What is to be planned.

    Raises InputError for a length beyond the model's positions and for a draft model of other tokens, MachineError for
    a GPU that has no fp8 or asks no draft model.
    """
    config = model.config
    if length is not None and length > config.positions:
        raise InputError(f"--length is {length:,}, and {model.name} has {config.positions:,} positions.")
    if draft is not None and draft.tokens is not None and draft.tokens != (model.tokens or draft.tokens):
        raise InputError(
            f"{draft.name} cannot guess for {model.name}: its tokenizer has {draft.tokens:,} tokens, that of "
            f"{model.name} {model.tokens:,}."
        )
    if not machine.on_gpu:
        machine = replace(machine, memory=machine.memory // machine.count)  # processes on one machine share it
    asked = Serving(model, draft, cache, machine, length or min(LENGTH, config.positions), batch)
    if missing := asked.missing_on(machine.gpu):
        raise MachineError(missing)
    return asked


def show_serving(asked: Serving, as_json: bool) -> bool:
    """Print what answering takes; whether the machine has room for it in bf16."""
    if as_json:
        from roslin.cli.plan import print_json

        print_json(_as_object(asked))
    else:
        _show(asked)
    return asked.fits("bf16")


def _as_object(asked: Serving) -> dict[str, Any]:
    machine = asked.machine
    return {
        "model": asked.model.name,
        "draft": asked.draft.name if asked.draft else None,
        "cache": asked.cache,
        "machine": machine.name,
        "count": machine.count,
        "memory": machine.memory,
        "usable": int(machine.memory * USABLE),
        "positions": asked.length,
        "batch": asked.batch,
        "answering": {
            precision: found.parts()
            | {
                "total": found.total,
                "fits": asked.fits(precision),
                "cache_tokens": asked.cache_tokens(precision),
            }
            for precision, found in asked.needs.items()
        },
        "most_answers_at_once": {
            gpu.name: {precision: asked.most_at_once(precision, gpu) for precision in SERVED} for gpu in GPUS.values()
        },
    }


def _show(asked: Serving) -> None:
    console, machine, batch = result_console(), asked.machine, asked.batch
    usable = gib(int(machine.memory * USABLE))
    answers = "One answer" if batch == 1 else f"{batch:,} answers at once"
    which = "it" if machine.count == 1 else "each"
    console.print(Text(f"{answers} of {asked.length:,} tokens with the prompt, from {_what(asked)}:"))
    for precision, found in asked.needs.items():
        verdict = "fits" if asked.fits(precision) else "does not fit"
        console.print(Text(f"  {precision}: {found}; {verdict} {machine.name} ({usable} of {which} can be used)"))
    room, positions = asked.cache_tokens("bf16"), asked.model.config.positions
    full = room // (-(-positions // BLOCK_TOKENS) * BLOCK_TOKENS)
    console.print(
        Text(f"In bf16 the cache would hold {room:,} tokens: {full:,} of {batch:,} answers at the model's full length.")
    )
    console.print(_gpus(asked))
    console.print(
        Text("`roslin quantize` writes int8, fp8 (as large) and int4: what they cost is in docs/quantize.md.")
    )


def _what(asked: Serving) -> str:
    words = asked.model.name
    if asked.draft is not None:
        words += f" with {asked.draft.name} as its draft model"
    if asked.cache == "fp8":
        words += ", keys and values in fp8"
    count = asked.machine.count
    if count == 1:
        return f"{words}, in GiB"
    if asked.draft is None:
        return f"{words}, in GiB, on each of {count} that hold it together"
    return f"{words}, in GiB, on the first of {count} that hold it together, which has all of the draft model"


def _gpus(asked: Serving) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    gpus = "GPU" if asked.machine.count == 1 else f"{asked.machine.count} ×"
    for heading in (gpus, *(f"answers at once\n{precision}" for precision in SERVED), "tokens/s of one\nbf16, at most"):
        table.add_column(heading, justify="left" if heading == gpus else "right")
    for gpu in GPUS.values():
        most = [asked.most_at_once(precision, gpu) for precision in SERVED]
        limit = f"{gpu.bandwidth * COPY_REACH / asked.needs['bf16'].weights:,.0f}" if most[0] else "–"
        table.add_row(gpu.title, *(f"{count:,}" if count else "–" for count in most), limit)
    return table
