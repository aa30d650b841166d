"""Full fine-tuning on one GPU: Roslin beside transformers, at full size with random weights and dolly-15k's lengths.

    python bench/gpu_tune.py                                    all parts, Pythia 6.9B's shapes, one 80 GB GPU
    python bench/gpu_tune.py --parts roslin --shape 12b --moments 8bit --in-backward --recompute 36

Parts: `roslin` (real tokens a second, MFU, peak memory, and where an update's time goes), `fp8` (the same with 8-bit
products), `fp16` (the same in fp16, with scaled losses, as GPUs without bf16 run it; only where it is asked for),
`dolly` (transformers as Dolly's trainer ran it: padded batches, every layer checkpointed), `best` (transformers at its
best: packed rows, compiled layers), and `agree`: the losses of 20 updates of 1.4 billion
parameters beside those of transformers with fp32 weights, autocast to bf16 and torch's AdamW in fp32, on the same rows.
Real tokens are those of records; padding is none. MFU counts 6 operations for every number of the layers' matrices and
the head and every token, without recomputation.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
import traceback
from pathlib import Path

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

from typing import TYPE_CHECKING, Literal

import torch

from gpu_peers import best_transformers, dolly_trainer, exact_transformers
from gpu_shared import (
    DEVICE,
    SHAPES,
    Result,
    clear,
    config_of,
    need_gpu,
    peak_gib,
    print_kernels,
    random_decoder,
    real_updates,
    synchronize,
)
from roslin.tune.ahead import made_ahead
from roslin.tune.optimizer import MasterAdamW
from roslin.tune.packing import Pack, join_rows, make_pack
from roslin.tune.passes import Products, speed_up
from roslin.tune.step import accumulate

if TYPE_CHECKING:
    from roslin.model import Decoder, ModelConfig
    from roslin.tokens import Example


Passes = Literal["bf16", "fp8", "fp16"]


def roslin(
    config: ModelConfig, updates: list[list[list[Example]]], asked: argparse.Namespace, passes: Passes = "bf16"
) -> Result:
    """Real updates through the very functions that `roslin tune` runs: the first `asked.warmup` are not timed."""
    clear()
    products: Products | None = None
    if passes == "fp8":
        from roslin.tune.passes.fp8 import Fp8Products

        products = Fp8Products(DEVICE)
    decoder = random_decoder(config, torch.float16 if passes == "fp16" else torch.bfloat16)
    speed_up(decoder, products=products, recomputed_layers=asked.recompute)
    optimizer = MasterAdamW(
        decoder,
        betas=(0.9, 0.999),
        epsilon=1e-8,
        weight_decay=0.0,
        moments=asked.moments,
        gradients="bf16",
        in_backward=asked.in_backward,
    )
    seconds, losses, tokens = [], [], 0
    scales = [2.0**n for n in range(16, -1, -1)] if passes == "fp16" else [1.0]

    def packs_of(rows: list[list[Example]]) -> list[Pack]:
        examples = [example for row in rows for example in row]
        places = iter(range(len(examples)))
        in_rows = [[next(places) for _ in row] for row in rows]
        joined = join_rows(in_rows, [len(example.ids) for example in examples], asked.tokens_per_pass)
        return [make_pack([examples[i] for i in one]) for one in joined]

    synchronize()
    started = time.perf_counter()
    for number, (_, packs) in enumerate(made_ahead(updates, packs_of)):
        if asked.in_backward:
            optimizer.begin(5e-6)
        for scale in scales:
            loss = accumulate(decoder, packs, sum(pack.answer_count for pack in packs), scale)
            norm = optimizer.update(5e-6, None if asked.in_backward else 1.0, scale)
            if math.isfinite(norm):
                break
            scales = scales[1:]
        losses.append(float(loss))
        assert math.isfinite(norm), "a gradient is not finite"
        now = time.perf_counter()
        if number >= asked.warmup:
            seconds.append(now - started)
            tokens += sum(pack.token_count for pack in packs)
        elif number == asked.warmup - 1 and DEVICE.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        started = now
    if asked.profile:
        profile(decoder, optimizer, updates[-1], asked)
    note = f"{asked.moments} moments{', in backward' if asked.in_backward else ''}, {asked.recompute} layers run again"
    return Result(f"Roslin, {passes}", tokens, seconds, peak_gib(), losses, note)


def profile(decoder: Decoder, optimizer: MasterAdamW, rows: list[list[Example]], asked: argparse.Namespace) -> None:
    """Where the GPU's time of one update goes, kernel by kernel."""
    pack = make_pack([example for row in rows for example in row])

    def update() -> None:
        if asked.in_backward:
            optimizer.begin(5e-6)
        accumulate(decoder, [pack], pack.answer_count)
        optimizer.update(5e-6, None if asked.in_backward else 1.0)

    print(f"  one update of {pack.token_count} tokens:")
    print_kernels(update, 1, most=26)


def agree(asked: argparse.Namespace) -> None:
    """Print how far the losses of both are apart, where both update exactly."""
    config, updates = config_of(asked.agree_shape), real_updates(20)
    exact = argparse.Namespace(
        **vars(asked) | {"moments": "fp32", "in_backward": False, "recompute": 0, "profile": False}
    )
    ours = roslin(config, updates, exact)
    its = exact_transformers(config, updates)
    print(f"{config.parameter_count / 1e9:.2f} B parameters, {agreement(ours, its)}", flush=True)


def agreement(ours: Result, its: Result) -> str:
    pairs = list(zip(ours.losses, its.losses, strict=False))
    apart = max(abs(a - b) / b for a, b in pairs)
    ends = " … ".join(f"{a:.4f} and {b:.4f}" for a, b in (pairs[0], pairs[-1]))
    return f"{ours.name} and {its.name}: losses of {len(pairs)} updates at most {apart:.3%} apart ({ends})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="roslin,fp8,dolly,best,agree")
    parser.add_argument("--shape", default="6.9b", choices=SHAPES)
    parser.add_argument("--agree-shape", default="1.4b", choices=SHAPES, help="of the part `agree`")
    parser.add_argument("--updates", type=int, default=20, help="updates in all, those before timing among them")
    parser.add_argument("--warmup", type=int, default=2, help="updates that are not timed")
    parser.add_argument("--peer-updates", type=int, default=2, help="timed updates of the slow peer")
    parser.add_argument("--moments", default="8bit", choices=("fp32", "bf16", "8bit"))
    parser.add_argument("--in-backward", action="store_true")
    parser.add_argument("--recompute", type=int, default=0, help="layers that are run again in the backward pass")
    parser.add_argument("--tokens-per-pass", type=int, default=16384)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--out", type=Path, help="file for the results as JSON")
    asked = parser.parse_args()
    if asked.shape != "tiny":  # which a CPU runs too
        need_gpu()
    config = config_of(asked.shape)
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU"
    updates = real_updates(asked.updates)
    print(f"{name}, torch {torch.__version__}; {config.parameter_count / 1e9:.2f} B parameters", flush=True)
    runs = {
        "roslin": lambda: roslin(config, updates, asked),
        "fp8": lambda: roslin(config, updates, asked, "fp8"),
        "fp16": lambda: roslin(config, updates, asked, "fp16"),
        "dolly": lambda: dolly_trainer(config, updates, asked),
        "best": lambda: best_transformers(config, updates, asked),
    }
    results: dict[str, Result] = {}
    parts = asked.parts.split(",")
    for part in (part for part in parts if part != "agree"):
        started = time.perf_counter()
        try:
            results[part] = runs[part]()
            print(results[part].line(config), f"({time.perf_counter() - started:.0f} s)", flush=True)
        except Exception:
            print(f"{part} failed:", traceback.format_exc(limit=-4), flush=True)
        clear()
    for other in ("fp8", "fp16"):
        if "roslin" in results and other in results:
            print(agreement(results["roslin"], results[other]))
    if "agree" in parts:
        agree(asked)
    if asked.out:
        asked.out.write_text(json.dumps({part: vars(result) for part, result in results.items()}, indent=1))


if __name__ == "__main__":
    main()
