"""Memory that is read again and again from end to end: in large pages, where the system has them.

A processor knows where some thousands of pages are; beyond that it looks each up, in a virtual machine by as many as
two dozen reads. With pages of 4 KiB a model of 40 MB is far beyond, in pages of 2 MiB it is a handful.
"""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from roslin.engine.cpu.library import library

PAGE = 2 << 20
"""Bytes of a large page."""
CHUNK = 32 << 20
"""Bytes that are asked of the system at a time; what is not used of them is never touched."""
_LINE = 64
"""Bytes between which nothing is shared: where each piece begins."""


class Room:
    """Memory for one model's matrices, one close behind the other: most by themselves are no large page."""

    def __init__(self) -> None:
        self._rest = torch.empty(0, dtype=torch.uint8)

    def take(self, count: int) -> Tensor:
        """Bytes [count] that hold anything. They are the room's for as long as any of its neighbours is used."""
        if count > len(self._rest):
            self._rest = in_large_pages(max(count, CHUNK))
        taken, self._rest = self._rest[:count], self._rest[-(-count // _LINE) * _LINE :]
        return taken


def in_large_pages(count: int) -> Tensor:
    """Bytes [count] that hold anything and begin with a page, in large pages where the system gives them."""
    memory = torch.empty(count + PAGE, dtype=torch.uint8)
    start = -memory.data_ptr() % PAGE
    memory = memory[start : start + count]
    _advise(memory)
    return memory


def zeros(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """What torch.zeros gives; on a CPU in large pages where they fit."""
    made = torch.empty(shape, dtype=dtype, device=device)
    if device.type == "cpu":
        _advise(made)
    return made.zero_()


def _advise(memory: Tensor) -> None:
    """Ask the system for large pages wherever one fits."""
    if found := library():
        found.roslin_large_pages(ctypes.c_void_p(memory.data_ptr()), ctypes.c_int64(memory.nbytes))
