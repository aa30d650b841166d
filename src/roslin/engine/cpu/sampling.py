"""The draw of tokens on a CPU by the C++ kernel (sample.cpp)."""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

from roslin.engine.cpu.library import NUMBER, POINTER, functions

ALONE = 2**15
"""Logits that one thread draws from in about 50 microseconds: less is not worth waking another one."""

EVERY_ID = 2**31
"""No vocabulary has as many tokens."""


@cache
def _functions() -> list[Callable[..., None]] | None:
    """Draw and sum up; None without the library."""
    return functions(
        {
            "roslin_draw": [POINTER, *[NUMBER] * 3, *[POINTER] * 5, ctypes.c_int],
            "roslin_log_sums": [POINTER, *[NUMBER] * 3, POINTER, ctypes.c_int],
        }
    )


def has_kernel(device: torch.device) -> bool:
    """Whether the kernels are there for logits on this device."""
    return device.type == "cpu" and _functions() is not None


def log_sums(logits_BV: Tensor) -> Tensor:
    """The logarithm of each row's sum of exponentials, [B], of float32 logits whose rows are dense."""
    kernels = _functions()
    assert kernels is not None
    rows, count = logits_BV.shape
    found_B = torch.empty(rows)
    kernels[1](logits_BV.data_ptr(), logits_BV.stride(0), rows, count, found_B.data_ptr(), _threads(logits_BV))
    return found_B


def _threads(logits_BV: Tensor) -> int:
    return 1 if logits_BV.numel() < ALONE else torch.get_num_threads()


class CppDraw:
    """Draws a token from each row of logits, by settings of the row's own."""

    def __init__(self, temperatures: Sequence[float], top_ps: Sequence[float], top_ks: Sequence[int]) -> None:
        """One of each for every row: a temperature of 0 takes the most probable; 0 for `top_k` leaves nothing out."""
        self._temperatures_B = torch.tensor(temperatures, dtype=torch.float32)
        self._top_ps_B = torch.tensor(top_ps, dtype=torch.float32)
        self._top_ks_B = torch.tensor([min(top_k, EVERY_ID) for top_k in top_ks], dtype=torch.int64)

    def __call__(self, logits_BV: Tensor, keys: Sequence[int]) -> Tensor:
        """Ids [B] drawn from float32 logits whose rows are dense; `keys` are those of the rows' random numbers."""
        kernels = _functions()
        assert kernels is not None
        rows, count = logits_BV.shape
        keys_B, ids_B = torch.tensor(keys, dtype=torch.int64), torch.empty(rows, dtype=torch.int64)
        kernels[0](
            logits_BV.data_ptr(), logits_BV.stride(0), rows, count, self._temperatures_B.data_ptr(),
            self._top_ps_B.data_ptr(), self._top_ks_B.data_ptr(), keys_B.data_ptr(), ids_B.data_ptr(),
            _threads(logits_BV),
        )  # fmt: skip
        return ids_B
