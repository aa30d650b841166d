"""Paged attention on a CPU by the C++ kernel (attention.cpp)."""

import ctypes
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from roslin.engine.blocks import BLOCK
from roslin.engine.cpu.library import NUMBER, POINTER, functions
from roslin.engine.cpu.runs import DTYPES, attend_last, by_token
from roslin.engine.queries import Layer, Queries

ALONE = 2**18
"""Numbers of keys that one thread reads in about 50 microseconds: less is not worth waking another one."""


@cache
def _functions() -> list[Callable[..., None]] | None:
    """Write and attend; None without the library."""
    return functions(
        {
            "roslin_paged_write": [POINTER] * 5 + [NUMBER] * 6 + [ctypes.c_int],
            "roslin_paged_attention": [POINTER] * 7 + [NUMBER] * 8 + [ctypes.c_float, ctypes.c_int, ctypes.c_int],
        }
    )


def has_kernel(dtype: torch.dtype) -> bool:
    """Whether the kernel is there and takes a cache of this dtype."""
    return dtype in DTYPES and _functions() is not None


class CppAttention:
    """The C++ kernel. Its arithmetic is in float32, whatever the cache keeps and the queries are."""

    chunk = 32

    def __init__(self) -> None:
        """Raises nothing where `has_kernel` holds."""
        kernels = _functions()
        assert kernels is not None
        self._write, self._attend = kernels

    def write(self, layer: Layer, k_NGK: Tensor, v_NGK: Tensor, places_N: Tensor) -> None:
        """Keep keys and values at these places."""
        keys, values = layer
        k_NGK, v_NGK = by_token(k_NGK.float()), by_token(v_NGK.float())
        tokens, groups, head_dim = k_NGK.shape
        self._write(
            keys.data_ptr(), values.data_ptr(), k_NGK.data_ptr(), v_NGK.data_ptr(), places_N.data_ptr(),
            k_NGK.stride(0), v_NGK.stride(0), tokens, groups, head_dim, BLOCK, DTYPES[keys.dtype],
        )  # fmt: skip

    def attend(self, layer: Layer, q_MHK: Tensor, queries: Queries) -> Tensor:
        """What each token gathers, [M, H, K]."""
        keys, values = layer
        dtype, q_MHK = q_MHK.dtype, by_token(q_MHK.float())
        tokens, heads, head_dim = q_MHK.shape
        groups = keys.shape[1]
        out_MHK = torch.empty(tokens, heads, head_dim)
        few = tokens * queries.longest * groups * head_dim < ALONE
        self._attend(
            out_MHK.data_ptr(), q_MHK.data_ptr(), keys.data_ptr(), values.data_ptr(), queries.tables_SW.data_ptr(),
            queries.slots_M.data_ptr(), queries.lengths_M.data_ptr(), q_MHK.stride(0), queries.tables_SW.stride(0),
            tokens, heads, groups, head_dim, BLOCK, queries.window or 0, head_dim**-0.5,
            DTYPES[keys.dtype], 1 if few else torch.get_num_threads(),
        )  # fmt: skip
        return out_MHK.to(dtype)

    def attend_last(self, q_CHK: Tensor, k_TGK: Tensor, v_TGK: Tensor, window: int | None) -> Tensor:
        """What a sequence's last C tokens gather, [C, H, K], of all T up to themselves."""
        return attend_last(q_CHK, k_TGK, v_TGK, window)
