"""Attention of tokens that lie one behind the other, on a CPU by the C++ kernel (chains.cpp)."""

from __future__ import annotations

import ctypes
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from roslin.engine.cpu.library import NUMBER, POINTER, functions

if TYPE_CHECKING:
    from collections.abc import Callable

DTYPES = {torch.float32: 0, torch.bfloat16: 1}
"""What the kernels of attention read, by the number that they have for it."""
RUN = 16
"""Tokens that one thread takes at a time: as many as the widest registers hold."""


@cache
def kernel() -> Callable[..., None] | None:
    """The kernel; None without the library."""
    how = [POINTER] * 6 + [NUMBER] * 8 + [ctypes.c_float, ctypes.c_int, ctypes.c_int]
    kernels = functions({"roslin_chain_attention": how})
    return kernels[0] if kernels else None


def attend_runs(
    q_NHK: Tensor, k_TGK: Tensor, v_TGK: Tensor, paths: Tensor, runs_R4: Tensor, window: int | None
) -> Tensor:
    """What each token of the runs gathers, [N, H, K], of their dtype, which must be one of DTYPES. Needs the library.

    A run of up to RUN tokens is where its first token lies in `q_NHK`, how many there are, where their path begins in
    `paths`, and how many tokens of it stand before the first; a path's tokens are places of keys and values. All int32.
    """
    attend = kernel()
    assert attend is not None
    q_NHK, k_TGK, v_TGK = map(by_token, (q_NHK, k_TGK, v_TGK))
    _, heads, head_dim = q_NHK.shape
    out_NHK = torch.empty(q_NHK.shape, dtype=q_NHK.dtype)
    attend(
        out_NHK.data_ptr(), q_NHK.data_ptr(), k_TGK.data_ptr(), v_TGK.data_ptr(), paths.data_ptr(),
        runs_R4.data_ptr(), len(runs_R4), q_NHK.stride(0), k_TGK.stride(0), v_TGK.stride(0), heads,
        k_TGK.shape[1], head_dim, window or 0, head_dim**-0.5, DTYPES[q_NHK.dtype], torch.get_num_threads(),
    )  # fmt: skip
    return out_NHK


def attend_last(q_CHK: Tensor, k_TGK: Tensor, v_TGK: Tensor, window: int | None) -> Tensor:
    """What a sequence's last C tokens gather, [C, H, K], of all T up to themselves; as `attend_runs`."""
    return attend_runs(q_CHK, k_TGK, v_TGK, *_last(len(k_TGK), len(q_CHK)), window)


@lru_cache(maxsize=8)
def _last(length: int, count: int) -> tuple[Tensor, Tensor]:
    """The path and the runs of a sequence's last tokens."""
    before = length - count
    runs = [(done, min(RUN, count - done), 0, before + done) for done in range(0, count, RUN)]
    return torch.arange(length, dtype=torch.int32), torch.tensor(runs, dtype=torch.int32)


def by_token(x_NGK: Tensor) -> Tensor:
    """The same with each token's numbers one behind the other; tokens may lie apart."""
    head_dim = x_NGK.shape[2]
    dense = x_NGK.stride(2) == 1 and x_NGK.stride(1) == head_dim
    return x_NGK if dense else x_NGK.contiguous()
