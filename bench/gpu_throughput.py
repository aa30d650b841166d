"""Throughput on one GPU: 1,024 prompts of dolly-15k's lengths, 128 new tokens each, greedy; peers' figures beside.

    python bench/gpu_throughput.py              all of it, under 8 minutes
    python bench/gpu_throughput.py --quick      under a minute
    python bench/gpu_throughput.py --profile    also a step's kernels by time
    python bench/gpu_throughput.py --parts graphs,apart,sampled,fp8 --common 512

Random weights at the shape of a Pythia model, bf16. A part that fails says so, and the others go on. Parts that answer:
`eager`, without CUDA graphs; `graphs`; `apart`, where each reads for itself what several begin with; `sampled`, drawn
from a nucleus of 0.92; `fp8`, with keys and values in fp8. `--common` adds a context of so many tokens that all share.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import statistics
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import torch

from gpu_shared import DEVICE, LENGTHS, SHAPES, clear, config_of, peak_gib, print_kernels, random_decoder, synchronize
from roslin.engine import GREEDY, Completion, Engine, Request, Sampling, beginnings, fuse
from roslin.engine.cache import FP8, KVCache
from roslin.model import ModelConfig, PackedAttention, packed_positions
from roslin.model.rotary import Rotary

if TYPE_CHECKING:
    from collections.abc import Callable

    from roslin.engine import Network

T = TypeVar("T")
VOCABULARY = 50280
PEERS = {"vLLM 0.24, 6.9b": 11_050, "bound from peak rates, 6.9b": 15_200}
"""New tokens a second of 1,024 such prompts, measured elsewhere on one H100."""


@dataclass(frozen=True)
class Way:
    """How a part answers."""

    graphs: bool = True
    apart: bool = False
    sampled: bool = False
    cache: torch.dtype | None = None


WAYS = {
    "eager": Way(graphs=False),
    "graphs": Way(),
    "apart": Way(apart=True),
    "sampled": Way(sampled=True),
    "fp8": Way(cache=FP8),
}
WORTH = beginnings.WORTH


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
    found.new = sum(len(completion.ids) for completion in found.done.values())
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


def attention(config: ModelConfig) -> None:
    """The kernel by itself: what it reads of the cache a second, for tiles and warps."""
    from roslin.engine.gpu import paged
    from roslin.engine.gpu.paged import GpuAttention, Tokens

    kept = paged.NUMBERS, paged.WARPS
    one = ModelConfig(**{**vars(config), "layers": 1})
    shapes = ((1, 256), (1, 2000), (64, 190), (448, 190), (448, 600))
    for batch, length, dtype in [*((*shape, torch.bfloat16) for shape in shapes), *((*shape, FP8) for shape in shapes)]:
        cache = KVCache(one, dtype, DEVICE)
        width = -(-length // 16)
        cache.provide(batch * width)
        tables = torch.randperm(batch * width, device=DEVICE).view(batch, width).int()
        slots = torch.arange(batch, device=DEVICE)
        positions = torch.full((batch,), length - 1, device=DEVICE)
        qkv = torch.randn(batch, config.qkv_rows, device=DEVICE).bfloat16()
        out = torch.empty(batch, config.query_rows, device=DEVICE, dtype=torch.bfloat16)
        figures = []
        for numbers in (2048, 4096, 8192):
            for warps in (1, 2, 4, 8):
                paged.NUMBERS, paged.WARPS = numbers, warps
                attend = GpuAttention(cache, tables, Tokens(slots, positions, batch, None))
                turns = Rotary(one).turns(positions, torch.bfloat16, attend)
                seconds = timed(
                    lambda attend=attend, qkv=qkv, turns=turns, out=out: attend.from_qkv(0, qkv, turns, out)
                )
                moved = batch * length * config.key_rows * 2 * dtype.itemsize
                figures.append(
                    (
                        seconds,
                        f"{numbers} numbers {warps} warps: {seconds * 1e6:.1f} µs {moved / seconds / 1e12:.2f} TB/s",
                    )
                )
        figures.sort()
        print(
            f"  {batch} × {length}, {str(dtype)[6:]}: "
            + "; ".join(text for _, text in figures[:4])
            + f"; worst {figures[-1][1]}",
            flush=True,
        )
        del cache
    paged.NUMBERS, paged.WARPS = kept
    attempt("shared places", lambda: shared_places(one))


def shared_places(one: ModelConfig) -> None:
    """Attention where all begin alike, each reading that for itself or all together."""
    from roslin.engine.gpu.paged import GpuAttention, SharedPlaces, Tokens, members, shares
    from roslin.engine.slots import Slots

    for batch, common, own in ((448, 16, 174), (448, 512, 174), (64, 512, 174), (16, 1600, 174)):
        width = -(-(common + own) // 16)
        cache = KVCache(one, torch.bfloat16, DEVICE)
        cache.provide(batch * width)
        slots = Slots(batch, 16 * width)
        tables = torch.randperm(batch * width).view(batch, width).int()
        tables[:, : common // 16] = tables[0, : common // 16]
        slots.rows_SW = tables.numpy()
        places = [common + own - 1] * batch
        found = beginnings.Beginnings(slots, members(*cache.heads[:2])).shared(range(batch), places)
        assert found is not None
        sent = (torch.from_numpy(numbers).to(DEVICE) for numbers in (found.commons_N, found.tiles_TX))
        positions = torch.tensor(places, device=DEVICE)
        qkv = torch.randn(batch, one.qkv_rows, device=DEVICE).bfloat16()
        times, outs = [], []
        for shared in (None, SharedPlaces(*sent, shares(batch))):
            tokens = Tokens(torch.arange(batch, device=DEVICE), positions, batch, None, shared=shared)
            attend = GpuAttention(cache, tables.to(DEVICE), tokens)
            turns = Rotary(one).turns(positions, torch.bfloat16, attend)
            outs.append(torch.empty(batch, one.query_rows, device=DEVICE, dtype=torch.bfloat16))
            run = (attend, qkv, turns, outs[-1])
            times.append(timed(lambda run=run: run[0].from_qkv(0, *run[1:])))
        apart = float((outs[1] - outs[0]).norm() / outs[0].norm())
        print(
            f"  {batch} × ({common} shared + {own}): {times[0] * 1e6:.1f} µs each for itself, {times[1] * 1e6:.1f} "
            f"together; {apart:.1e} apart",
            flush=True,
        )


def timed(run: Callable[[], object], calls: int = 20) -> float:
    """Seconds a call, in a graph of several."""
    for _ in range(3):
        run()
    synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            run()
    graph.replay()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    graph.replay()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3 / calls


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


def network_of(config: ModelConfig, *, plain: bool) -> Network:
    """Random weights as answers are made with them, or as they are."""
    if plain:
        return random_decoder(config)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="6.9b", choices=SHAPES)
    parser.add_argument("--prompts", type=int, default=1024)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1024, help="requests at once, at most")
    parser.add_argument(
        "--parts",
        default="eager,graphs,single,attention,plain",
        help="which, with commas between: also apart, sampled, fp8",
    )
    parser.add_argument("--common", type=int, default=0, help="tokens of a context that all prompts share")
    parser.add_argument("--plain-decoder", action="store_true", help="the plain decoder instead of the fused one")
    parser.add_argument("--quick", action="store_true", help="half the prompts and half the tokens")
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()
    if asked.quick:
        asked.prompts, asked.new = asked.prompts // 2, asked.new // 2
        asked.parts = "graphs,single"
    config, parts = config_of(asked.shape), asked.parts.split(",")
    requests = requests_of(asked.prompts, asked.new, common=asked.common)
    introduce(asked.shape, requests)
    if "attention" in parts:
        attempt("attention", lambda: attention(config))
    network = network_of(config, plain=asked.plain_decoder)
    clear()
    last: Measured | None = None
    for part in [part for part in WAYS if part in parts]:

        def run(part: str = part, way: Way = WAYS[part]) -> Measured:
            beginnings.WORTH = 10**9 if way.apart else WORTH
            engine = Engine(
                network, VOCABULARY, asked.batch, weights_stay=True, graphs=way.graphs, cache_dtype=way.cache
            )
            print(f"cache: {engine.capacity}")
            kind = {"common": asked.common, "sampled": way.sampled}
            measure(f"{part}, warming up", engine, requests_of(asked.batch if way.graphs else 64, 3, seed=1, **kind))
            if way.graphs and not asked.quick:
                measure(f"Roslin, {part}, other prompts", engine, requests_of(asked.prompts, asked.new, seed=2, **kind))
            its = requests_of(asked.prompts, asked.new, **kind)
            measured = measure(f"Roslin, {part}", engine, its)
            attempt(f"{part} beside alone", lambda: compare_alone(engine, its, measured))
            if "single" in parts:
                attempt(f"{part} single", lambda: single(engine, part, sampled=way.sampled))
            if asked.profile:
                attempt(f"{part} profile", lambda: profile(engine, requests_of(asked.batch, 300, seed=3, **kind)))
            return measured

        found = attempt(part, run)
        if found is not None and not WAYS[part].sampled:
            last = found
        clear()
    beside_peers(last)
    if last is not None and "plain" in parts:
        kept = last
        del network
        clear()
        attempt("plain", lambda: compare_plain(config, requests, kept))
    assert last is None or math.isfinite(last.seconds)


if __name__ == "__main__":
    main()
