"""Attention over the paged cache on one GPU by itself: what it reads of the cache a second, and shared beginnings.

    python bench/gpu_attention.py               at the shape of Pythia 6.9B, a minute or two

The kernel for tokens that come alone, for tiles and warps of several sizes, keys and values in bf16 and in fp8; and
sequences that begin alike, each reading that for itself or all together.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from gpu_shared import DEVICE, SHAPES, config_of, need_gpu, synchronize
from roslin.engine import beginnings
from roslin.engine.cache import KVCache
from roslin.model.fp8 import FP8
from roslin.model.rotary import Rotary

if TYPE_CHECKING:
    from collections.abc import Callable

    from roslin.model import ModelConfig


def attention(config: ModelConfig) -> None:
    """The kernel by itself: what it reads of the cache a second, for tiles and warps."""
    from roslin.engine.gpu import paged
    from roslin.engine.gpu.paged import GpuAttention, Tokens

    kept = paged.NUMBERS, paged.WARPS
    one = replace(config, layers=1)
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
    shared_places(one)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="6.9b", choices=SHAPES)
    asked = parser.parse_args()
    need_gpu()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {asked.shape}", flush=True)
    attention(config_of(asked.shape))


if __name__ == "__main__":
    main()
