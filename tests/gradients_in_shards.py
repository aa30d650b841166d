"""For torchrun in the tests: gradients of a model in shards, summed over processes, against one whole model's.

Arguments: the model's folder and a name of how its blocks run. The first process prints the largest difference.
"""

import sys
from pathlib import Path

import torch

from roslin.model import load_decoder
from roslin.tune.dealing import NOTHING
from roslin.tune.packing import Pack
from roslin.tune.passes.block import recompute, speed_up
from roslin.tune.processes import joined
from roslin.tune.recipe import Sharding
from roslin.tune.sharding import make_mesh, shard
from roslin.tune.step import accumulate

CPU = torch.device("cpu")
BLOCKS = {
    "plain": lambda decoder: None,
    "written out": speed_up,
    "written out, two again": lambda decoder: speed_up(decoder, recomputed_layers=2),
    "plain, all again": lambda decoder: recompute(decoder, 3),
}


def pack(length: int, source: torch.Generator) -> Pack:
    ids = torch.randint(0, 100, (length,), generator=source)
    return Pack(ids, [length], torch.arange(length - 1), ids[1:])


def main() -> None:
    folder, how = Path(sys.argv[1]), sys.argv[2]
    source = torch.Generator().manual_seed(1)
    packs = [pack(length, source) for length in (10, 17, 31)]
    whole = load_decoder(folder)
    accumulate(whole, packs)
    with joined(CPU, 60) as processes:
        shared = load_decoder(folder)
        shard(shared, make_mesh(Sharding(), CPU, processes.count), offload=False, on_pass=processes.step)
        BLOCKS[how](shared)
        mine = [[packs[0], packs[2]], [packs[1], NOTHING]][processes.rank]
        accumulate(shared, mine, sum(pack.answer_count for pack in packs))
        pairs = zip(shared.parameters(), whole.parameters(), strict=True)
        largest = max(float((ours.grad.full_tensor() - theirs.grad).abs().max()) for ours, theirs in pairs)
        if processes.is_first:
            print(largest)


if __name__ == "__main__":
    main()
