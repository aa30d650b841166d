"""Throughput on one GPU: 1,024 prompts of dolly-15k's lengths, 128 new tokens each, greedy; peers' figures beside.

    python bench/gpu_throughput.py              all of it, under 8 minutes
    python bench/gpu_throughput.py --quick      a minute or two
    python bench/gpu_throughput.py --profile    also a step's kernels by time
    python bench/gpu_throughput.py --parts limits,graphs,apart,sampled,fp8 --common 512

Random weights at the shape of a Pythia model, bf16. A part that fails says so, and the others go on. Parts that answer:
`eager`, without CUDA graphs; `graphs`; `apart`, where each reads for itself what several begin with; `sampled`, drawn
from a nucleus of 0.92; `fp8`, with keys and values in fp8; `fp8-all`, with weights in fp8 too. `single` is one stream
beside each of them, `plain` the error of the log-probabilities against the plain decoder, `limits` what the memory
reads and the tensor cores multiply at most, of which each part then has its share. `--common` adds a context of so many
tokens that all share.
"""

from __future__ import annotations

import argparse
import csv
import gc
import math
import random
import statistics
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import torch

from gpu_shared import (
    DEVICE,
    LENGTHS,
    SHAPES,
    clear,
    config_of,
    need_gpu,
    peak_gib,
    print_kernels,
    random_decoder,
    synchronize,
)
from roslin.engine import GREEDY, Completion, Engine, Request, Sampling, beginnings, fuse
from roslin.engine.scheduler import PROMPT_TOKENS_BESIDE
from roslin.memory import token_bytes
from roslin.model import PackedAttention, packed_positions
from roslin.model.fp8 import FP8

if TYPE_CHECKING:
    from collections.abc import Callable

    from roslin.engine import Network
    from roslin.model import ModelConfig

T = TypeVar("T")
VOCABULARY = 50280
PEERS = {"vLLM 0.24, 6.9b": 11_050, "bound from peak rates, 6.9b": 15_200}
"""New tokens a second of 1,024 such prompts, measured elsewhere on one H100."""
PARTS = "limits,eager,graphs,fp8-all,single,plain"


@dataclass(frozen=True)
class Way:
    """How a part answers."""

    graphs: bool = True
    apart: bool = False
    sampled: bool = False
    cache: torch.dtype | None = None
    weights: bool = False
    """In fp8."""


WAYS = {
    "eager": Way(graphs=False),
    "graphs": Way(),
    "apart": Way(apart=True),
    "sampled": Way(sampled=True),
    "fp8": Way(cache=FP8),
    "fp8-all": Way(cache=FP8, weights=True),
}
WORTH = beginnings.WORTH


@dataclass
class Limits:
    """What the GPU does at most, measured: bytes read and numbers multiplied and added (twice each) a second."""

    read: float = 0.0
    flops: float = 0.0


@dataclass
class Measured:
    name: str
    seconds: float = 0.0
    new: int = 0
    prompt: int = 0
    steps: list[tuple[float, int]] = field(default_factory=list)
    """Of each step its seconds and the tokens that it brought."""
    preempted: int = 0
    peak: float = 0.0
    done: dict[int, Completion] = field(default_factory=dict)
    lengths: list[tuple[int, int]] = field(default_factory=list)
    """Of each prompt and its answer."""

    def lines(self) -> str:
        times = sorted(seconds for seconds, _ in self.steps)
        fullest = sorted(self.steps, key=lambda step: -step[1])[: max(1, len(self.steps) // 5)]
        return (
            f"{self.name}: {self.new / self.seconds:,.0f} new tokens/s, {self.prompt / self.seconds:,.0f} prompt "
            f"tokens/s; {self.seconds:.2f} s, {len(times)} steps, median {statistics.median(times) * 1e3:.1f} ms, "
            f"longest {times[-1] * 1e3:.1f} ms;\n    the fullest fifth: {statistics.mean(n for _, n in fullest):.0f} "
            f"tokens in {statistics.mean(s for s, _ in fullest) * 1e3:.1f} ms; {self.preempted} gave way; "
            f"peak {self.peak:.1f} GiB"
        )

    def shares(self, config: ModelConfig, way: Way, limits: Limits) -> str:
        """What was read and multiplied a second: all weights a step, each one's cache a token, products of tokens."""
        head = config.vocab_rows * config.width
        layers = config.parameter_count - 2 * head
        each = token_bytes(config, way.cache.itemsize if way.cache else 2)
        cached = sum(length * new + new * (new + 1) // 2 for length, new in self.lengths)
        read = (len(self.steps) * (layers + head) * (1 if way.weights else 2) + cached * each) / self.seconds
        flops = 2 * (layers * (self.prompt + self.new) + head * self.new) / self.seconds
        of_read = f" ({read / limits.read:.1%} of {limits.read / 1e9:,.0f})" if limits.read else ""
        of_flops = f" ({flops / limits.flops:.1%} of {limits.flops / 1e12:.0f} in bf16)" if limits.flops else ""
        return f"    {read / 1e9:,.0f} GB/s read{of_read}, {flops / 1e12:.0f} TFLOP/s of products{of_flops}"


def requests_of(count: int, new: int, seed: int = 0, *, common: int = 0, sampled: bool = False) -> list[Request]:
    with LENGTHS.open() as file:
        lengths = [int(row["prompt"]) for row in csv.DictReader(file)]
    chance = random.Random(seed)
    # Dolly's fixed opening is 21 tokens.
    opening = [chance.randrange(3, 50000) for _ in range(21 + common)]
    chosen = [min(chance.choice(lengths), 1024) for _ in range(count)]
    return [
        Request(
            [*opening, *(chance.randrange(3, 50000) for _ in range(length))][: length + common],
            new,
            Sampling(seed=number) if sampled else GREEDY,
        )
        for number, length in enumerate(chosen)
    ]


def measure(name: str, engine: Engine, requests: list[Request]) -> Measured:
    found = Measured(name, prompt=sum(len(request.prompt_ids) for request in requests))
    before = engine.preempted
    synchronize()
    started = last = time.perf_counter()
    first = engine.submit_all(requests)[0]
    while engine.busy:
        events = engine.step()
        now = time.perf_counter()
        found.steps.append((now - last, len(events)))
        last = now
        for event in events:
            if event.completion is not None:
                found.done[event.number - first] = event.completion
    synchronize()
    found.seconds = time.perf_counter() - started
    found.lengths = [(len(one.prompt_ids), len(found.done[number].ids)) for number, one in enumerate(requests)]
    found.new = sum(new for _, new in found.lengths)
    found.preempted, found.peak = engine.preempted - before, peak_gib()
    print(found.lines(), flush=True)
    return found


def compare_alone(engine: Engine, requests: list[Request], together: Measured) -> None:
    """A few requests by themselves: bf16's low-order bits move with the batch, so near ties may fall either way."""
    for number in (0, len(requests) // 2, len(requests) - 1):
        [alone] = engine.run([requests[number]])
        found = together.done[number]
        same = next((i for i, (a, b) in enumerate(zip(alone.ids, found.ids, strict=True)) if a != b), len(alone.ids))
        pairs = zip(alone.logprobs[: same + 1], found.logprobs[: same + 1], strict=True)
        apart = max(abs(a - b) for a, b in pairs)
        print(f"  request {number}: {same} of {len(alone.ids)} tokens as alone, log-probabilities within {apart:.3f}")


@torch.inference_mode()
def compare_plain(config: ModelConfig, requests: list[Request], together: Measured) -> None:
    """The log-probabilities of what was drawn, by the plain decoder in one pass over each."""
    decoder = random_decoder(config)
    for number in (0, len(requests) // 2, len(requests) - 1):
        prompt, done = list(requests[number].prompt_ids), together.done[number]
        ids = torch.tensor([*prompt, *done.ids], device=DEVICE)
        positions = packed_positions([len(ids)]).to(DEVICE)
        logits = decoder.logits(decoder.hidden(ids, positions, PackedAttention([len(ids)])))[len(prompt) - 1 : -1]
        expected = logits.float().log_softmax(-1)
        chosen = expected.gather(-1, ids[len(prompt) :, None])[:, 0]
        best = expected[:, :VOCABULARY].max(-1).values
        mine = torch.tensor(done.logprobs, device=DEVICE)
        print(
            f"  request {number}: log-probabilities within {(chosen - mine).abs().max():.3f} of the plain decoder's "
            f"(mean {(chosen - mine).abs().mean():.4f}), its best at most {(best - chosen).max():.3f} above"
        )
    del decoder
    clear()


def single(engine: Engine, name: str, *, sampled: bool) -> None:
    """One stream: 128 tokens after 128."""
    request = Request(list(range(100, 228)), 128, Sampling(seed=0) if sampled else GREEDY)
    engine.run([request])
    synchronize()
    started = time.perf_counter()
    engine.run([request])
    print(f"{name}, one stream: {128 / (time.perf_counter() - started):.1f} tokens/s, the prompt's pass included")


def profile(engine: Engine, requests: list[Request]) -> None:
    """Where the GPU's time of some steps goes, kernel by kernel: with prompts beside, then all answering."""
    engine.submit_all(requests)
    for name, before in (("steps with prompts beside", 12), ("steps in which all answer", 10**6)):
        for _ in range(before):
            if before > 1000 and not engine.prompts_left:
                break
            engine.step()
        synchronize()
        print(f"  {name}, {engine.occupancy.held:,} tokens held:")
        print_kernels(engine.step, 3, most=14)
    while engine.busy:
        engine.step()


def attempt(name: str, part: Callable[[], T]) -> T | None:
    """A part, or the end of what it died of."""
    started = time.perf_counter()
    try:
        return part()
    except Exception:
        print(f"{name} failed:\n" + "".join(traceback.format_exc().splitlines(keepends=True)[-14:]), flush=True)
        return None
    finally:
        print(f"[{name}: {time.perf_counter() - started:.1f} s]", flush=True)


def measure_limits(limits: Limits) -> None:
    """A plain read, and a product of bf16 matrices."""
    from gpu_decode import Report, rates, timed

    report = Report()
    rates(report)
    one = torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16)
    limits.read, limits.flops = report.read, 2 * 8192**3 / timed(lambda: one @ one)
    print(f"products in bf16 {limits.flops / 1e12:.0f} TFLOP/s", flush=True)


def network_of(config: ModelConfig, *, plain: bool, fp8: bool) -> Network:
    """Random weights as answers are made with them, or as they are."""
    if plain:
        return random_decoder(config)
    if fp8:
        from roslin.engine.gpu.decoder import GpuDecoder
        from roslin.engine.gpu.matrix import in_fp8

        with torch.inference_mode():
            return GpuDecoder(random_decoder(config), in_fp8)
    return attempt("fuse", lambda: fuse(random_decoder(config))) or random_decoder(config)


def introduce(shape: str, requests: list[Request]) -> None:
    on = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU"
    print(f"{on}, torch {torch.__version__}, {shape}, bf16")
    lengths = sorted(len(request.prompt_ids) for request in requests)
    print(
        f"{len(requests)} prompts of {lengths[len(lengths) // 2]} tokens (median; mean {statistics.mean(lengths):.0f})"
    )


def beside_peers(last: Measured | None) -> None:
    for peer, rate in PEERS.items():
        share = f" (Roslin {last.new / last.seconds / rate:.2f} of it)" if last and last.seconds else ""
        print(f"{peer}: {rate:,} new tokens/s{share}")


def answered(asked: argparse.Namespace, part: str, way: Way, config: ModelConfig, limits: Limits) -> Measured:
    """All prompts, answered in one way."""
    network = network_of(config, plain=asked.plain_decoder, fp8=way.weights)
    clear()
    beginnings.WORTH = 10**9 if way.apart else WORTH
    engine = Engine(network, VOCABULARY, asked.batch, weights_stay=True, graphs=way.graphs, cache_dtype=way.cache)
    print(f"cache: {engine.capacity}")
    started = time.perf_counter()
    engine.prepare()
    print(f"made ready in {time.perf_counter() - started:.1f} s", flush=True)
    # Else Python's garbage collector looks through all that was imported now and then, for 0.1 s.
    gc.collect()
    gc.freeze()
    kind = {"common": asked.common, "sampled": way.sampled}
    measure(f"{part}, warming up", engine, requests_of(asked.batch if way.graphs else 64, 3, seed=1, **kind))
    if way.graphs:  # of which most are captured here
        measure(f"Roslin, {part}, other prompts", engine, requests_of(asked.prompts, asked.new, seed=2, **kind))
    requests = requests_of(asked.prompts, asked.new, **kind)
    measured = measure(f"Roslin, {part}", engine, requests)
    print(measured.shares(config, way, limits), flush=True)
    attempt(f"{part} beside alone", lambda: compare_alone(engine, requests, measured))
    if "single" in asked.parts.split(","):
        attempt(f"{part} single", lambda: single(engine, part, sampled=way.sampled))
    if asked.profile:
        attempt(f"{part} profile", lambda: profile(engine, requests_of(asked.batch, 300, seed=3, **kind)))
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="6.9b", choices=SHAPES)
    parser.add_argument("--prompts", type=int, default=1024)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1024, help="requests at once, at most")
    parser.add_argument("--parts", default=PARTS, help="which, with commas between: also apart, sampled, fp8")
    parser.add_argument("--common", type=int, default=0, help="tokens of a context that all prompts share")
    parser.add_argument("--beside", type=int, help="prompt tokens of a pass in which others answer (usual: 512)")
    parser.add_argument("--plain-decoder", action="store_true", help="the plain decoder instead of the fused one")
    parser.add_argument("--quick", action="store_true", help="half the prompts and half the tokens")
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()
    if asked.shape != "tiny":  # which a CPU runs too
        need_gpu()
    if asked.quick:
        asked.prompts, asked.new = asked.prompts // 2, asked.new // 2
        asked.parts = "limits,graphs,single,plain"
    config, parts, limits = config_of(asked.shape), asked.parts.split(","), Limits()
    if asked.beside:
        PROMPT_TOKENS_BESIDE[DEVICE.type] = asked.beside
    introduce(asked.shape, requests_of(asked.prompts, asked.new, common=asked.common))
    if "limits" in parts:
        attempt("limits", lambda: measure_limits(limits))
    last: Measured | None = None
    for part in [part for part in WAYS if part in parts]:
        found = attempt(part, lambda part=part: answered(asked, part, WAYS[part], config, limits))
        gc.unfreeze()
        if found is not None and not WAYS[part].sampled and not WAYS[part].weights:
            last = found
        clear()
    beside_peers(last)
    if last is not None and "plain" in parts:
        kept, requests = last, requests_of(asked.prompts, asked.new, common=asked.common)
        attempt("plain", lambda: compare_plain(config, requests, kept))
    assert last is None or math.isfinite(last.seconds)


if __name__ == "__main__":
    main()
