"""What the benches of a GPU share: shapes, random weights, dolly-15k's lengths as updates, and a result's line."""

from __future__ import annotations

import csv
import gc
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from roslin.memory import GIB
from roslin.model import Decoder, ModelConfig
from roslin.tokens import Example
from roslin.tune.course import Course
from roslin.tune.log import peak_flops
from roslin.tune.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable

LENGTHS = Path(__file__).with_name("dolly_15k_lengths.csv")
SHAPES = {
    "tiny": (64, 2, 4),
    "160m": (768, 12, 12),
    "1.4b": (2048, 24, 16),
    "2.8b": (2560, 32, 32),
    "6.9b": (4096, 32, 32),
    "12b": (5120, 36, 40),
}
"""Width, layers and heads of the Pythia suite."""
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def need_gpu() -> None:
    """End with a sentence where torch sees no NVIDIA GPU."""
    if DEVICE.type != "cuda":
        sys.exit("This bench needs an NVIDIA GPU, and torch sees none here (torch.cuda.is_available() is false).")


def config_of(shape: str) -> ModelConfig:
    width, layers, heads = SHAPES[shape]
    return ModelConfig.from_hf(
        {
            "architectures": ["GPTNeoXForCausalLM"],
            "model_type": "gpt_neox",
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": 4 * width,
            "vocab_size": 50432,
            "max_position_embeddings": 2048,
            "rotary_pct": 0.25,
            "rotary_emb_base": 10000,
            "hidden_act": "gelu",
            "use_parallel_residual": True,
            "layer_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "bos_token_id": 0,
            "eos_token_id": 0,
        }
    )


def random_decoder(config: ModelConfig, dtype: torch.dtype = torch.bfloat16) -> Decoder:
    """The same weights each time: matrices normal with a deviation of 0.02, norms the identity."""
    with torch.device("meta"):
        decoder = Decoder(config).to(dtype)
    decoder.to_empty(device=DEVICE)
    generator = torch.Generator(DEVICE).manual_seed(0)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=0.02, generator=generator)
            else:
                parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return decoder


def real_updates(count: int, seed: int = 42) -> list[list[list[Example]]]:
    """The first updates of Dolly's recipe: rows of examples with dolly-15k's lengths and random ids."""
    with LENGTHS.open() as file:
        lengths = [(int(row["prompt"]), int(row["whole"])) for row in csv.DictReader(file)]
    kept = [(prompt, whole) for prompt, whole in lengths if whole < 2048]
    recipe = Recipe.parse({"model": "base", "records": ["-"], "output": "-", "seed": seed})
    course = Course(recipe, [whole for _, whole in kept])
    generator = torch.Generator().manual_seed(seed)
    updates = []
    for rows, _ in zip(course.after(0), range(count), strict=False):
        updates.append(
            [
                [Example(torch.randint(3, 50000, (kept[i][1],), generator=generator).tolist(), kept[i][0]) for i in row]
                for row in rows
            ]
        )
    return updates


@dataclass
class Result:
    name: str
    tokens: int
    """Real tokens of the measured updates."""
    seconds: list[float]
    """Of each measured update."""
    peak_gib: float
    losses: list[float]
    note: str = ""

    def rate(self) -> float:
        return self.tokens / sum(self.seconds)

    def line(self, config: ModelConfig) -> str:
        work = 6 * (config.parameter_count - config.vocab_rows * config.width)
        peak = peak_flops(DEVICE)
        mfu = f"{self.rate() * work / peak:6.1%}" if peak else "     –"
        median = statistics.median(self.seconds)
        return (
            f"{self.name:34s} {self.rate():9,.0f} tokens/s  MFU {mfu}  {self.peak_gib:5.1f} GiB  "
            f"{median * 1e3:7.0f} ms an update (median of {len(self.seconds)})  loss {self.losses[-1]:.4f}  {self.note}"
        )


def synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def peak_gib() -> float:
    return torch.cuda.max_memory_allocated() / GIB if DEVICE.type == "cuda" else 0.0


def clear() -> None:
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def print_kernels(run: Callable[[], object], rounds: int, *, most: int) -> None:
    """Where the GPU's time of `run` goes: of each kernel the milliseconds a round, the share, and how often it runs."""
    from torch.profiler import ProfilerActivity, profile

    synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        for _ in range(rounds):
            run()
        synchronize()
    times: dict[str, list[float]] = {}
    for event in found.events():
        if event.device_time_total > 0:
            times.setdefault(event.name[:80], []).append(event.device_time_total / 1e3)
    whole = sum(map(sum, times.values()))
    print(f"    {whole / rounds:8.2f} ms of kernels")
    for name, parts in sorted(times.items(), key=lambda item: -sum(item[1]))[:most]:
        count = len(parts) // rounds
        print(f"    {sum(parts) / rounds:8.3f} ms {sum(parts) / whole:5.1%}  {count:5d} x {name}", flush=True)
