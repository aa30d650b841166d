"""What torch's allocator for the CPU gives out during a run, and rows and models of real proportions to run."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from roslin.model import ModelConfig
from roslin.tokens import Example
from roslin.tune.packing import Pack, make_pack
from tiny_decoders import tiny_decoder


@dataclass(frozen=True)
class Allocated:
    """Bytes above what was there before a run."""

    peak: int
    left: int
    """What its result still holds."""


def allocated(run: Callable[[], object], folder: Path) -> Allocated:
    """Run, and count."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = run()
    profiler.export_chrome_trace(str(folder / "trace.json"))
    del result
    trace = json.loads((folder / "trace.json").read_text(encoding="utf-8"))
    events = sorted((e for e in trace["traceEvents"] if e["name"] == "[memory]"), key=lambda event: event["ts"])
    held = [event["args"]["Total Allocated"] for event in events]
    before = held[0] - events[0]["args"]["Bytes"]
    return Allocated(max(held) - before, held[-1] - before)


def peak_of(run: Callable[[], object], folder: Path) -> int:
    """The most bytes that were given out during a run, above what was there before."""
    return allocated(run, folder).peak


def scaled(family: str, **changes: Any) -> ModelConfig:
    """A real model's proportions; grouped keys where the family has them."""
    config = tiny_decoder(family).config
    heads = 12 if config.kv_heads == config.heads else 4
    sizes = {"width": 768, "heads": 12, "kv_heads": heads, "head_dim": 64, "inner": 3072, "positions": 2048}
    return replace(config, **(sizes | changes))


def row(lengths: Sequence[int], vocabulary: int = 64) -> Pack:
    """A row of examples of these lengths, nearly all of them answers."""
    source = torch.Generator().manual_seed(0)
    ids = [torch.randint(vocabulary, (length,), generator=source).tolist() for length in lengths]
    return make_pack([Example(ids=one, answer_start=2) for one in ids])


def bytes_of(tensors: Sequence[torch.Tensor]) -> int:
    """Of all together."""
    return sum(tensor.nbytes for tensor in tensors)
