"""What moments in fewer bits cost in held-out loss: one recipe, the same rows, and nothing else that differs.

usage: python bench/moments.py RECORDS.jsonl [--count 2000] [--epochs 2] [--records-per-update 16] [--base base]
       python bench/moments.py --speed 1e9

Tunes a base once with moments in fp32, which all others are compared with, then in bf16, in 8 bits, and in 8 bits with
the steps made in the backward pass. Every update is one pass, and nothing is clipped, so that the last is comparable.
Passes are in bf16 on CUDA and in fp32 elsewhere, unless --precision says otherwise. Demanded: moments within 0.2 %, fp8
products within 0.5 %.

With --speed the optimizer alone is timed instead, on that many parameters in bf16 and their gradients: milliseconds an
update and GB/s, counting every byte once that a step must read or write.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from roslin import records
from roslin.tune import Callbacks, Recipe, UpdateLog, fit, prepare
from roslin.tune.adamw.moments import Kind
from roslin.tune.optimizer import MasterAdamW

WAYS: dict[str, dict[str, Any]] = {
    "fp32": {"optimizer": {"moments": "fp32", "gradients": "bf16"}},
    "bf16": {"optimizer": {"moments": "bf16", "gradients": "bf16"}},
    "8bit": {"optimizer": {"moments": "8bit", "gradients": "bf16"}},
    "8bit, in backward": {"optimizer": {"moments": "8bit", "in_backward": True}},
    "fp8 products": {"optimizer": {"moments": "fp32", "gradients": "bf16"}, "fp8": True},
}
BYTES: dict[Kind, float] = {"fp32": 16, "bf16": 8, "8bit": 4 + 16 / 128}
"""Of both moments, read and written, a parameter."""
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def tuned_loss(options: argparse.Namespace, path: Path, folder: Path, way: str) -> tuple[float, float]:
    """Held-out loss before and after."""
    recipe = Recipe.parse(
        {
            "model": options.base,
            "records": [str(path)],
            "output": str(folder / way),
            "held_out": {"fraction": options.held_out},
            "epochs": options.epochs,
            "records_per_update": options.records_per_update,
            "max_length": options.max_length,
            "row_length": options.max_length,
            "tokens_per_pass": options.records_per_update * options.max_length,
            "learning_rate": options.learning_rate,
            "clip_norm": None,
            "precision": options.precision or ("bf16" if DEVICE.type == "cuda" else "fp32"),
            "evaluate_every": 10**9,
            "checkpoint_every": 10**9,
            "tensorboard": False,
        }
        | WAYS[way]
    )
    losses: list[float] = []

    def note(log: UpdateLog) -> None:
        losses.append(log.loss)

    start = time.monotonic()
    tuned = fit(recipe, prepare(recipe), Callbacks(on_step=note))
    print(
        f"{way}: {tuned.updates} updates, {tuned.tokens:,} tokens, held-out loss {tuned.before.loss:.5f} -> "
        f"{tuned.held_out.loss:.5f}; last training losses {', '.join(f'{loss:.4f}' for loss in losses[-3:])}; "
        f"{time.monotonic() - start:.0f} s",
        flush=True,
    )
    return tuned.before.loss, tuned.held_out.loss


def compare(options: argparse.Namespace) -> None:
    """Tune in every way and print the ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "records.jsonl"
        found = records.load([options.records])[: options.count]
        path.write_text("".join(record.model_dump_json() + "\n" for record in found), encoding="utf-8")
        ends = {way: tuned_loss(options, path, folder, way) for way in ("fp32", *options.ways)}
    before, exact = ends["fp32"]
    for way, (_, after) in ends.items():
        print(
            f"{way}: {100 * (after / exact - 1):+.3f} % of fp32's loss, "
            f"{100 * (before - after) / (before - exact):.2f} % of what fp32 learned"
        )


def time_updates(count: int, rounds: int = 10) -> None:
    """Time the optimizer by itself on matrices as wide as Pythia 6.9B's."""
    width = min(4096, max(128, int(count**0.5) // 128 * 128))
    model = nn.ParameterList(
        nn.Parameter(torch.randn(4 * width, width, device=DEVICE, dtype=torch.bfloat16) * 0.02)
        for _ in range(max(1, count // (4 * width * width)))
    )
    whole = sum(p.numel() for p in model.parameters())
    for kind, of_moments in BYTES.items():
        optimizer = MasterAdamW(
            model, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.0, moments=kind, gradients="bf16"
        )
        times = []
        for _ in range(rounds):
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, 1e-4)
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            optimizer.update(1e-5, 1.0)
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        best = sorted(times)[len(times) // 2]
        # Weight and low half are read and written, the gradient is read twice: by the norm and by the step.
        moved = whole * (8 + 4 + of_moments)
        print(
            f"{kind}: {whole:,} parameters, {best * 1e3:.2f} ms an update, {moved / best / 1e9:,.0f} GB/s", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", nargs="?", help="a file of records")
    parser.add_argument("--base", default="base")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--records-per-update", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--held-out", type=float, default=0.1)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument(
        "--ways", nargs="+", default=list(WAYS)[1 : 5 if DEVICE.type == "cuda" else 4], choices=list(WAYS)[1:]
    )
    parser.add_argument("--precision", choices=["fp32", "bf16"])
    parser.add_argument("--speed", type=float, help="time the optimizer on so many parameters instead")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name() if DEVICE.type == 'cuda' else 'CPU'}")
    if options.speed:
        time_updates(int(options.speed))
    elif options.records:
        compare(options)
    else:
        parser.error("give a file of records, or --speed")


if __name__ == "__main__":
    main()
