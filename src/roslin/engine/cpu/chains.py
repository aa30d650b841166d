"""Attention over trees of rows on a CPU by the C++ kernel (chains.cpp)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from roslin.engine.cpu.runs import DTYPES, RUN, attend_runs, kernel
from roslin.engine.tree import ChainAttention

if TYPE_CHECKING:
    from collections.abc import Sequence

    from roslin.engine.tree import Tree


def attention_by_chains(
    trees: Sequence[Tree], device: torch.device, dtype: torch.dtype, window: int | None
) -> CppChainAttention | ChainAttention:
    """Attention over trees on a CPU: by the kernel, or by torch's where ours is missing or does not take the dtype."""
    if dtype in DTYPES and kernel() is not None:
        return CppChainAttention(trees, window)
    return ChainAttention(trees, device, dtype, window)


class CppChainAttention:
    """Attention over trees one behind the other, all chains and heads of a layer in one call.

    What a token gathers is the same to the bit whatever is laid out beside its row.
    """

    def __init__(self, trees: Sequence[Tree], window: int | None) -> None:
        """`window` is how far back a token sees, in positions of its row. Needs the library."""
        self._window = window
        self._reach = [tree.reach() for tree in trees]
        paths: list[int] = []
        runs: list[tuple[int, int, int, int]] = []
        start = 0
        for tree in trees:
            for chain in tree.chains:
                before = len(chain.path) - chain.count
                for done in range(0, chain.count, RUN):
                    run = (start + chain.start + done, min(RUN, chain.count - done), len(paths), before + done)
                    runs.append(run)
                paths += [start + place for place in chain.path]
            start += tree.size
        self._paths = torch.tensor(paths, dtype=torch.int32)
        self._runs_R4 = torch.tensor(runs, dtype=torch.int32)

    def __call__(self, layer: int, q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor) -> Tensor:
        """What each token gathers, [N, H, K]."""
        return attend_runs(q_NHK, k_NGK, v_NGK, self._paths, self._runs_R4, self._window)

    def reach(self, positions_N: Tensor) -> Tensor:
        """How long each token's row is, [N]."""
        return torch.tensor([length for tree in self._reach for length in tree])
