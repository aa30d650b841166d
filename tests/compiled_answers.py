"""Compile the kernels of answering for GPUs that are not here, as passes launch them: PTX and machine code.

python tests/compiled_answers.py, without TRITON_INTERPRET: prints a kernel, how often it was compiled (each launch that
Triton would compile anew), and its GPU's capability, a line. Passes of one token, of a few and of many run on the CPU,
in every form of matrix, and each launch compiles instead of running; what they compute is rubbish.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from triton.runtime.jit import JITFunction

from roslin.engine import Request, Sampling
from roslin.engine.generation import Generation
from roslin.engine.gpu import many
from roslin.engine.gpu.choice import Draws, limits_of
from roslin.engine.gpu.decoder import GpuDecoder
from roslin.engine.gpu.matrix import as_it_is, in_fp8, in_int4, in_int8
from roslin.engine.graphs import Graphs
from roslin.engine.passes import Passes
from roslin.engine.scheduler import Run
from roslin.engine.store import Store
from roslin.model.fp8 import FP8
from tiny_decoders import tiny_decoder

CAPABILITIES = (80, 90)
KINDS = {
    torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int32: "*i32", torch.int64: "*i64", torch.int8: "*i8",
    torch.uint8: "*u8", FP8: "*fp8e4nv",
}  # fmt: skip
EARLY = (0, 2)
ROWS = (1, 5, 40)
"""Of passes: each has products of its own."""

Source = tuple[JITFunction[Any], tuple[tuple[str, str], ...], tuple[tuple[str, Any], ...], tuple[tuple[str, Any], ...]]


class Launches:
    """What passes launch, each once."""

    def __init__(self) -> None:
        self.seen: dict[Source, None] = {}

    def run(self, kernel: JITFunction[Any], *args: Any, grid: Any, warmup: bool, **told: Any) -> None:
        names = [parameter.name for parameter in kernel.params]
        given = dict(zip(names, args, strict=False)) | {name: told.pop(name) for name in names if name in told}
        constants = {p.name: given[p.name] for p in kernel.params if p.is_constexpr}
        kinds = {}
        for parameter in kernel.params:
            value = given[parameter.name]
            is_one = isinstance(value, int) and value == 1 and not parameter.do_not_specialize
            if parameter.is_constexpr or is_one:
                constants[parameter.name] = value
                kinds[parameter.name] = "constexpr"
            else:
                kinds[parameter.name] = kind_of(value)
        options = {name: value for name, value in told.items() if name not in ("debug", "instrumentation_mode")}
        self.seen[kernel, tuple(kinds.items()), tuple(constants.items()), tuple(options.items())] = None


def kind_of(value: Any) -> str:
    if isinstance(value, Tensor):
        return KINDS[value.dtype]
    return "fp32" if isinstance(value, float) else "i32"


def needed(source: Source) -> int:
    """The first capability for which engines launch this: fp8 and early starts are not for all."""
    _, kinds, _, options = source
    return 90 if ("launch_pdl", True) in options else 89 if "*fp8e4nv" in dict(kinds).values() else 0


def compiled(source: Source, capability: int) -> None:
    kernel, kinds, constants, options = source
    names = kernel.arg_names
    told = {(names.index(name),): value for name, value in constants}
    made = compile(
        ASTSource(kernel, dict(kinds), told),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": 4} | dict(options),
    )
    assert made.asm["cubin"]


def zeros(left: Tensor, right: Tensor, *, out_dtype: torch.dtype, **told: Any) -> Tensor:
    """Instead of torch's product in fp8, which torch before 2.13 does not make on a CPU."""
    return torch.zeros(len(left), right.shape[1], dtype=out_dtype)


def decoders() -> Iterator[tuple[GpuDecoder, torch.dtype]]:
    sizes: dict[str, Any] = {"head_dim": 128, "width": 256, "inner": 512, "rotary_dims": 32, "layers": 1}
    for family in ("gpt_neox", "llama"):
        for hold in (as_it_is, in_int8, in_fp8, in_int4):
            made = GpuDecoder(tiny_decoder(family, vocab_rows=320, **sizes).bfloat16(), hold)
            yield made, FP8 if hold is in_fp8 else torch.bfloat16


def passes(decoder: GpuDecoder, kept: torch.dtype) -> None:
    """A prompt's pass beside those that answer, and steps of some numbers of rows, greedy and drawn, and early."""
    store = Store(decoder, 64, 48, kernels=True, kept=kept)
    store.pool.make_all()
    asked = [Generation(n, Request([n % 7] * 30, 5, Sampling(seed=n))) for n in range(3)]
    for one in asked:
        one.slot = store.slots.take(34)
        store.slots.write(one.slot, store.pool.take(3) or [])
    begun = Passes(decoder, store, 300, kernels=True, graphs=False)
    begun.begin([Run(asked[0], 29, 30, 1), Run(asked[1], 0, 30, 1), Run(asked[2], 0, 20, 0)])
    graphs = Graphs(decoder, store.cache, store.resident, 300, 48, capture=False)
    for early in EARLY:
        for name, launch in decoder.launches.items():
            decoder.launches[name] = type(launch)(launch.rows, launch.block, launch.warps, early)
        for rows in ROWS if not early else ROWS[:1]:
            step(graphs, list(range(rows)), rows > 1)


def step(graphs: Graphs, slots: Sequence[int], shared: bool) -> None:
    draws = Draws(torch.zeros(len(slots), dtype=torch.int64).numpy(), limits_of([Sampling()] * len(slots)))
    graphs.drawn(slots, [20] * len(slots), draws)
    graphs.drawn(slots, [20] * len(slots), None)
    if shared:
        graphs._compute(graphs._buckets[-1], "best", True)


@torch.no_grad()
def main() -> None:
    launches = Launches()

    def run(kernel: JITFunction[Any], *args: Any, **told: Any) -> None:
        launches.run(kernel, *args, **told)

    # What kernels would write is zeros: ids, among others, that may be looked up.
    empty, cores = patch.object(torch, "empty", torch.zeros), patch.object(many, "has_fp8_cores", lambda device: True)
    with patch.object(JITFunction, "run", run), patch.object(torch, "_scaled_mm", zeros), empty, cores:
        for decoder, kept in decoders():
            passes(decoder, kept)
    for capability in CAPABILITIES:
        counts: Counter[str] = Counter()
        for source in launches.seen:
            if capability >= needed(source):
                compiled(source, capability)
                counts[source[0].__name__] += 1
        for name, count in counts.items():
            print(f"{name} {count} sm_{capability}", flush=True)


if __name__ == "__main__":
    main()
