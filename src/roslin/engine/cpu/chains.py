"""Attention over trees of rows on a CPU by the C++ kernel (chains.cpp)."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from roslin.engine.cpu.attention import DTYPES, by_token
from roslin.engine.cpu.library import NUMBER, POINTER, functions
from roslin.engine.tree import ChainAttention

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from roslin.engine.tree import Tree

RUN = 16
"""Tokens that one thread takes at a time: as many as the widest registers hold."""


@cache
def _function() -> Callable[..., None] | None:
    """The kernel; None without the library."""
    how = [POINTER] * 6 + [NUMBER] * 8 + [ctypes.c_float, ctypes.c_int, ctypes.c_int]
    kernels = functions({"roslin_chain_attention": how})
    return kernels[0] if kernels else None


def attention_by_chains(
    trees: Sequence[Tree], device: torch.device, dtype: torch.dtype, window: int | None
) -> CppChainAttention | ChainAttention:
    """Attention over trees on a CPU: by the kernel, or by torch's where ours is missing or does not take the dtype."""
    if dtype in DTYPES and _function() is not None:
        return CppChainAttention(trees, window)
    return ChainAttention(trees, device, dtype, window)


class CppChainAttention:
    """Attention over trees one behind the other, all chains and heads of a layer in one call.

    What a token gathers is the same to the bit whatever is laid out beside its row.
    """

    def __init__(self, trees: Sequence[Tree], window: int | None) -> None:
        """`window` is how far back a token sees, in positions of its row. Needs the library."""
        function = _function()
        assert function is not None
        self._attend, self._window = function, window or 0
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
        q_NHK, k_NGK, v_NGK = map(by_token, (q_NHK, k_NGK, v_NGK))
        _, heads, head_dim = q_NHK.shape
        out_NHK = torch.empty(q_NHK.shape, dtype=q_NHK.dtype)
        self._attend(
            out_NHK.data_ptr(), q_NHK.data_ptr(), k_NGK.data_ptr(), v_NGK.data_ptr(), self._paths.data_ptr(),
            self._runs_R4.data_ptr(), len(self._runs_R4), q_NHK.stride(0), k_NGK.stride(0), v_NGK.stride(0), heads,
            k_NGK.shape[1], head_dim, self._window, head_dim**-0.5, DTYPES[q_NHK.dtype], torch.get_num_threads(),
        )  # fmt: skip
        return out_NHK

    def reach(self, positions_N: Tensor) -> Tensor:
        """How long each token's row is, [N]."""
        return torch.tensor([length for tree in self._reach for length in tree])
