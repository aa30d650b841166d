"""One stream of answering on one GPU: tokens/s and GB/s by Roslin's kernels, beside what the memory can give.

    python bench/gpu_decode.py                  all of it, under 8 minutes
    python bench/gpu_decode.py --quick          a minute or two, most of it Triton's compiler
    python bench/gpu_decode.py --quick --search launches tried first
    python bench/gpu_decode.py --peers          also transformers with a static cache, compiled

Random weights at the shape of a Pythia model. A whole step is one CUDA graph: 128 tokens of a prompt, then 128 new
ones, greedy. Errors are ‖logits - plain‖ / ‖plain‖, the plain decoder's logits being of the same weights and tokens.
"""

from __future__ import annotations

import argparse
import time
import traceback
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from gpu_shared import DEVICE, SHAPES, clear, config_of, need_gpu, print_kernels, random_decoder, synchronize
from roslin.engine.blocks import BLOCK, blocks_for
from roslin.engine.cache import KVCache
from roslin.engine.gpu import products
from roslin.engine.gpu.decoder import GpuDecoder
from roslin.engine.gpu.launch import starts_early
from roslin.engine.gpu.matrix import as_it_is, in_fp8, in_int4, in_int8
from roslin.engine.gpu.paged import GpuAttention, Tokens
from roslin.engine.gpu.search import tune_launches
from roslin.model import PackedAttention, packed_positions

if TYPE_CHECKING:
    from collections.abc import Callable

    from roslin.engine.network import Network
    from roslin.model import ModelConfig

PROMPT, NEW = 128, 128
VOCABULARY = 50280
PEERS = {"vLLM 0.24, CUDA graphs": 167.0, "transformers, static, compiled": 131.0}
"""Tokens a second of one stream in bf16 at 6.9b's shape, measured elsewhere on one H100."""
HEAD = 50000
"""Rows of which only the head has as many: in a model of 4 bits it is in 8."""
FORMS = {
    "bf16": as_it_is,
    "int8": in_int8,
    "fp8": in_fp8,
    "int4": lambda matrix: in_int4(matrix) if matrix.rows < HEAD else in_int8(matrix),
}
EARLY = ((2,), (0, 1, 2))
"""Ways of starting kernels early that are tried, in short and in full."""


@dataclass
class Line:
    name: str
    rate: float
    """Tokens a second."""
    count: float = 0
    """Bytes of weights that a token reads; 0 where nobody knows."""
    note: str = ""


@dataclass
class Report:
    copy: float = 0.0
    read: float = 0.0
    """Bytes a second."""
    lines: list[Line] = field(default_factory=list)

    def table(self) -> None:
        print(f"\ncopy {self.copy / 1e12:.2f} TB/s, read {self.read / 1e12:.2f} TB/s")
        print(f"{'':34s} {'tokens/s':>9s} {'GB/s':>7s} {'of read':>8s} {'limit':>7s}")
        for line in self.lines:
            figures = ""
            if line.count and self.read:
                moved = line.rate * line.count
                figures = f"{moved / 1e9:7.0f} {moved / self.read:8.1%} {self.read / line.count:7.0f}"
            print(f"{line.name:34s} {line.rate:9.1f} {figures:24s}  {line.note}", flush=True)


@triton.jit
def read_all(numbers, out, count, block: tl.constexpr):
    """Sums of 16 tiles a program: a read of everything, and next to nothing else."""
    program = tl.program_id(0).to(tl.int64)
    total = tl.zeros((block,), tl.int32)
    for tile in range(16):
        place = (program * 16 + tile) * block + tl.arange(0, block)
        total += tl.load(numbers + place, mask=place < count, other=0)
    tl.store(out + program, tl.sum(total, 0))


def rates(report: Report) -> None:
    """What a copy and a plain read reach."""
    big = torch.zeros(2**29, dtype=torch.int32, device=DEVICE)
    other = torch.empty_like(big)
    report.copy = 2 * big.nbytes / timed(lambda: other.copy_(big))
    for block in (2048, 4096, 8192):
        grid = triton.cdiv(big.numel(), 16 * block)
        sums = torch.empty(grid, dtype=torch.int32, device=DEVICE)
        seconds = timed(lambda block=block, grid=grid, sums=sums: read_all[(grid,)](big, sums, big.numel(), block))
        report.read = max(report.read, big.nbytes / seconds)
    print(f"copy {report.copy / 1e12:.2f} TB/s, read {report.read / 1e12:.2f} TB/s", flush=True)


def timed(run: Callable[[], object], rounds: int = 5) -> float:
    """Seconds of the fastest of a few."""
    run()
    best = float("inf")
    for _ in range(rounds):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        end.synchronize()
        best = min(best, begin.elapsed_time(end) / 1e3)
    return best


class Steps:
    """Sequences a token at a time: a step is one graph, in which the position moves on and the best id comes next."""

    def __init__(self, decoder: Network, length: int, streams: int = 1) -> None:
        self._decoder = decoder
        cache = KVCache(decoder.config, decoder.dtype, decoder.device)
        blocks = blocks_for(length)
        cache.provide(streams * blocks)
        tables = torch.arange(streams * blocks, dtype=torch.int32, device=DEVICE).view(streams, blocks)
        self.token, self.position = (torch.zeros(streams, dtype=torch.int64, device=DEVICE) for _ in range(2))
        tokens = Tokens(torch.arange(streams, device=DEVICE), self.position, streams, None)
        self._attend = GpuAttention(cache, tables, tokens)
        self.logits = torch.zeros(streams, decoder.config.vocab_rows, dtype=decoder.dtype, device=DEVICE)
        self._step()
        synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._step()
        self.token.zero_()
        self.position.zero_()

    def _step(self) -> None:
        hidden = self._decoder.hidden(self.token, self.position, self._attend)
        logits = self._decoder.logits(hidden)
        self.logits.copy_(logits)
        self.token.copy_(logits.argmax(-1))
        self.position.add_(1)

    def forced(self, ids: torch.Tensor) -> torch.Tensor:
        """The logits behind each of these ids in the last stream, [N, V]; all streams are given the same."""
        rows = []
        self.position.zero_()
        for place in range(len(ids)):
            self.token.copy_(ids[place : place + 1])
            self._graph.replay()
            rows.append(self.logits[-1].clone())
        return torch.stack(rows)

    def generate(self, ids: torch.Tensor, new: int) -> tuple[list[int], float]:
        """Ids drawn after a prompt, and the seconds each took."""
        self.forced(ids)
        drawn = torch.empty(new, dtype=torch.int64, device=DEVICE)
        synchronize()
        begin = time.perf_counter()
        for place in range(new):
            drawn[place : place + 1].copy_(self.token[-1:])
            self._graph.replay()
        synchronize()
        return drawn.tolist(), (time.perf_counter() - begin) / new

    def profile(self) -> None:
        """Where the time of a step goes, by kernel."""
        print_kernels(self._graph.replay, 3, most=8)


def weight_bytes(config: ModelConfig) -> float:
    """What a token reads of plain weights in bf16: all matrices but the embedding's."""
    return 2.0 * (config.parameter_count - config.vocab_rows * config.width)


def read_bytes(decoder: GpuDecoder) -> float:
    """What a token reads of the matrices, their scales with them."""
    return float(sum(product.bytes for product in decoder.products))


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.float() - theirs.float()).norm() / theirs.float().norm())


@torch.inference_mode()
def whole(decoder: Network, ids: torch.Tensor) -> torch.Tensor:
    """Logits of every position of one sequence, in one pass."""
    attend = PackedAttention([len(ids)])
    return decoder.logits(decoder.hidden(ids, packed_positions([len(ids)]).to(DEVICE), attend))


def some_ids(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(3, 50000, (count,), generator=generator).to(DEVICE)


def start_early(decoder: GpuDecoder, early: int) -> None:
    for name, launch in decoder.launches.items():
        decoder.launches[name] = replace(launch, early=early)


@torch.inference_mode()
def exactness(shape: str) -> None:
    """Errors at a small shape against the plain decoder in fp32, beside what bf16 costs the plain one."""
    config, ids = config_of(shape), some_ids(96)
    exact = whole(random_decoder(config).float(), ids)
    print(f"{shape}, errors against the plain decoder in fp32:", flush=True)
    print(f"  plain decoder, bf16: {error(whole(random_decoder(config), ids), exact):.1e}", flush=True)
    decoder = GpuDecoder(random_decoder(config).float())
    print(f"  fp32, whole {error(whole(decoder, ids), exact):.1e}", end=", ", flush=True)
    print(f"by steps {error(Steps(decoder, 128).forced(ids), exact):.1e}", flush=True)
    for form, hold in FORMS.items():
        decoder = GpuDecoder(random_decoder(config), hold)
        for early in EARLY[form == "bf16"] if starts_early(DEVICE) else (0,):
            start_early(decoder, early)
            stepped = Steps(decoder, 128).forced(ids)
            print(f"  {form}, early {early}, by steps {error(stepped, exact):.1e}", flush=True)
        print(f"  {form}, whole {error(whole(decoder, ids), exact):.1e}", flush=True)
        del decoder
        clear()


@torch.inference_mode()
def engine_check(shape: str) -> None:
    """The engine's greedy tokens in fp32, by either decoder."""
    from roslin.engine import GREEDY, Engine, Request

    config = config_of(shape)
    requests = [Request(some_ids(40 + 9 * n).tolist(), 24, GREEDY) for n in range(3)]
    expected = Engine(random_decoder(config).float(), VOCABULARY, 2).run(requests)
    found = Engine(GpuDecoder(random_decoder(config).float()), VOCABULARY, 2).run(requests)
    same = [one.ids == other.ids for one, other in zip(found, expected, strict=True)]
    print(f"{shape} in fp32 through the engine: same tokens as the plain decoder: {same}", flush=True)


@torch.inference_mode()
def ours(report: Report, shape: str, form: str, asked: argparse.Namespace, plain: torch.Tensor | None) -> None:
    """Roslin's decoder with matrices of one form, starting early in each way."""
    config = config_of(shape)
    decoder = GpuDecoder(random_decoder(config), FORMS[form])
    clear()
    ids = some_ids(PROMPT + NEW)
    if plain is not None:
        print(f"{form}: error of a whole pass {error(whole(decoder, ids), plain):.2e}", flush=True)
    if asked.search:
        search(decoder, form)
    best: tuple[float, int] = (0.0, 0)
    ways = EARLY[form == "bf16" or not asked.quick]
    for early in ways if starts_early(DEVICE) else (0,):
        try:
            start_early(decoder, early)
            steps = Steps(decoder, PROMPT + NEW + BLOCK)
            note = f"error {error(steps.forced(ids), plain):.2e}" if plain is not None else ""
            _, seconds = min((steps.generate(ids[:PROMPT], NEW) for _ in range(2)), key=lambda pair: pair[1])
            name = f"{form}, " + ("one after the other", "early", "early, MLP first")[early]
            report.lines.append(Line(name, 1 / seconds, read_bytes(decoder), note))
            print(f"  {name}: {1 / seconds:.1f} tokens/s, {note}", flush=True)
            best = max(best, (1 / seconds, early))
            if early in (0, 2) and form != "int8":
                steps.profile()
        except Exception:
            print(f"  early {early} failed: {traceback.format_exc(limit=-4)[-1500:]}", flush=True)
    start_early(decoder, best[1])
    if plain is not None:
        several(report, decoder, form, plain)


def several(report: Report, decoder: GpuDecoder, form: str, plain: torch.Tensor) -> None:
    """A few streams at once, by our own kernels for that and, beside them, by torch's products."""
    ids = some_ids(PROMPT + NEW)
    for few, name in ((products.FEW, "ours"), (1, "torch's")) if form == "bf16" else ((products.FEW, "ours"),):
        products.FEW, kept = few, products.FEW
        try:
            for streams in (2, 8):
                steps = Steps(decoder, PROMPT + NEW + BLOCK, streams)
                wrong = error(steps.forced(ids[:PROMPT]), plain[:PROMPT])
                _, seconds = steps.generate(ids[:PROMPT], NEW)
                assert len(steps.logits) == streams
                each = read_bytes(decoder) / streams
                line = Line(f"{form}, {streams} streams, {name}", streams / seconds, each, f"error {wrong:.2e}")
                report.lines.append(line)
        except Exception:
            print(f"  several streams failed: {traceback.format_exc(limit=-4)[-1500:]}", flush=True)
        products.FEW = kept


def search(decoder: GpuDecoder, form: str) -> None:
    begin = time.perf_counter()
    tried = tune_launches(decoder)
    for product in {product.name: product for product in decoder.products}.values():
        its = sorted((one for one in tried if one.name == product.name), key=lambda one: one.seconds)
        print(f"  {form} {product.name}, {product.bytes / 1e6:.0f} MB:", flush=True)
        for one in [*its[:5], its[-1]]:
            launch, speed = one.launch, product.bytes / one.seconds / 1e12
            shape = f"{launch.rows} x {launch.block}, {launch.warps} warps"
            print(f"    {shape}: {one.seconds * 1e6:7.1f} µs {speed:.2f} TB/s", flush=True)
    print(f"  searched for {time.perf_counter() - begin:.0f} s", flush=True)


@torch.inference_mode()
def theirs(report: Report, shape: str, compiled: bool, new: int) -> None:
    """transformers' generate, greedy, as it comes or with a static cache and compiled."""
    from gpu_peers import hf_model

    config = config_of(shape)
    model = hf_model(config).eval()
    model.config.use_cache = True
    model.generation_config.eos_token_id = None
    ids = some_ids(PROMPT)[None]
    told = {"cache_implementation": "static"} if compiled else {}

    def run(count: int) -> float:
        synchronize()
        begin = time.perf_counter()
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            **told,
        )
        synchronize()
        assert out.shape[1] == PROMPT + count
        return time.perf_counter() - begin

    run(new)
    seconds = run(new) - run(1)
    name = "transformers, static, compiled" if compiled else "transformers, sdpa"
    report.lines.append(Line(name, (new - 1) / seconds, weight_bytes(config)))


def part(name: str, run: Callable[[], object]) -> None:
    begin = time.perf_counter()
    try:
        run()
        print(f"[{name}: {time.perf_counter() - begin:.0f} s]", flush=True)
    except Exception:
        print(f"[{name} failed] {traceback.format_exc(limit=-4)[-2000:]}", flush=True)
    clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="6.9b")
    parser.add_argument("--quick", action="store_true", help="no 2.8b and 12b, nothing of transformers")
    parser.add_argument(
        "--search", action="store_true", help="try several launches of each kernel, and take the fastest"
    )
    parser.add_argument("--peers", action="store_true", help="transformers also with a static cache, compiled")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    asked = parser.parse_args()
    need_gpu()
    report = Report()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, Triton {triton.__version__}", flush=True)
    part("rates", lambda: rates(report))
    part("errors at 160m", lambda: exactness("160m"))
    plain: list[torch.Tensor] = []
    part("plain", lambda: plain.append(whole(random_decoder(config_of(asked.shape)), some_ids(PROMPT + NEW))))
    for form in asked.forms:
        part(form, lambda form=form: ours(report, asked.shape, form, asked, plain[0] if plain else None))
    part("engine", lambda: engine_check("160m"))
    if not asked.quick:
        part("transformers", lambda: theirs(report, asked.shape, False, 64))
        for shape in ("2.8b", "12b"):
            report.lines.append(Line(shape, 0.0))
            part(shape, lambda shape=shape: ours(report, shape, "bf16", asked, None))
    if asked.shape == "6.9b":
        each = weight_bytes(config_of(asked.shape))
        report.lines += [Line(name, rate, each, "measured elsewhere") for name, rate in PEERS.items()]
    if asked.peers:
        part("transformers, compiled", lambda: theirs(report, asked.shape, True, NEW))
    report.table()


if __name__ == "__main__":
    main()
