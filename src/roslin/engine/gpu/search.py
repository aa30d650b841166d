"""Which launch of a product is the fastest, by trying."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from roslin.engine.gpu.launch import Launch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from roslin.engine.gpu.decoder import GpuDecoder
    from roslin.engine.gpu.products import NormedProduct, ResidualProduct

ROUNDS = 3
CANDIDATES = tuple(
    Launch(rows, block, warps)
    for block, warps in ((1024, 4), (2048, 4), (2048, 8), (512, 2), (4096, 4), (4096, 8))
    for rows in (1, 2, 4, 8)
    if 32 <= rows * block // (32 * warps) <= 128
)
"""Tiles of at least 32 numbers a thread, and at most 128."""
PACKED = tuple(
    Launch(rows, block, warps)
    for block, warps in ((1024, 1), (2048, 2), (4096, 4), (2048, 1), (4096, 2), (8192, 4), (8192, 8))
    for rows in (1, 2, 4, 8, 16)
    if 64 <= rows * block // (32 * warps) <= 256
)
"""The same in 4 bits, where a thread reads 32 numbers at one time."""


@dataclass(frozen=True)
class Tried:
    """A product's launch and the seconds that it took, on average over the layers."""

    name: str
    launch: Launch
    seconds: float


def tune_launches(decoder: GpuDecoder) -> list[Tried]:
    """Try launches with every product on the GPU, and keep the fastest of each; all that was tried."""
    by_name: dict[str, list[NormedProduct | ResidualProduct]] = {}
    for product in decoder.products:
        by_name.setdefault(product.name, []).append(product)
    x_ND = torch.zeros(1, decoder.config.width, dtype=decoder.dtype, device=decoder.device)
    tried = []
    for name, products in by_name.items():
        its = []
        for launch in PACKED if products[0].bits == 4 else CANDIDATES:
            decoder.launches[name] = launch
            its.append(Tried(name, launch, _seconds(products, x_ND)))
        decoder.launches[name] = min(its, key=lambda one: one.seconds).launch
        tried += its
    return tried


def _seconds(products: Sequence[NormedProduct | ResidualProduct], x_ND: torch.Tensor) -> float:
    """The best of a few rounds, all products launched by one graph, one after the other, so that no cache helps."""
    products[0].rehearse(x_ND)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for product in products:
            product.rehearse(x_ND)
    times = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        graph.replay()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - begin) / len(products))
    return min(times)
