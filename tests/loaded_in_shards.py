"""For torchrun in the tests: load a model's shards, and say what memory that took at its peak.

Arguments: the folder of a small model, which is loaded first and brings in all code; that of the large one; and
`shards`, or `whole` for what a process by itself does. Prints a line a process.
"""

import json
import os
import sys
from pathlib import Path

import torch

from roslin.model import load_config
from roslin.tune.base import Base, Vocabulary, load_base
from roslin.tune.processes import Processes, joined
from roslin.tune.recipe import Sharding
from roslin.tune.shard_loading import load_in_shards

PEAK_BACK_TO_NOW = "5"
CPU = torch.device("cpu")


def kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def load(folder: Path, how: str, processes: Processes) -> Base:
    config, vocabulary = load_config(folder), Vocabulary(130, [128, 129], "mean")
    fp32 = torch.float32
    if how == "shards":
        return load_in_shards(
            folder, config, vocabulary, device=CPU, precision=fp32, sharding=Sharding(), processes=processes
        )
    base = load_base(folder, config, vocabulary, device=CPU, precision=fp32)
    sum(float(parameter.detach().sum()) for parameter in base.decoder.parameters())  # pages come when touched
    return base


def main() -> None:
    small, large, how = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    with joined(CPU, 120) as processes:
        load(small, how, processes)
        Path("/proc/self/clear_refs").write_text(PEAK_BACK_TO_NOW, encoding="utf-8")
        before = kib("VmRSS")
        base = load(large, how, processes)
        grown = (kib("VmHWM") - before) * 1024
        size = sum(parameter.numel() for parameter in base.decoder.parameters()) * 4
        line = json.dumps({"share": grown / size, "digest": base.digest.hex()})
        os.write(1, f"{line}\n".encode())  # whole, whatever the other process writes meanwhile


if __name__ == "__main__":
    main()
