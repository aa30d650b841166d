"""Memory by the page: room for a tensor, and files that the system reads ahead."""

from __future__ import annotations

import mmap
import os
import sys
from contextlib import contextmanager, suppress
from math import prod
from threading import Event, Thread
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

HUGE_PAGE = 2**21
STEP = 2**19
"""How much is asked for at a time. Of more, Linux may read only the beginning: the limit is the disk's largest request
or its read-ahead, whichever is more."""


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Room for a tensor. Large ones on Linux's CPU are made of huge pages, which are filled twice as fast."""
    size = prod(shape) * dtype.itemsize
    if sys.platform != "linux" or device.type != "cpu" or size < HUGE_PAGE:
        return torch.empty(*shape, dtype=dtype, device=device)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(*shape)


@contextmanager
def reading_ahead(paths: Iterable[Path]) -> Iterator[None]:
    """Within it the system reads files, in this order and in large pieces, ahead of those who touch their pages.

    Leaving it waits for the end, unless by an error.
    """
    if sys.platform != "linux":
        yield
        return
    failed = Event()
    thread = Thread(target=_ask_for, args=(list(dict.fromkeys(paths)), failed), daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        failed.set()
        raise
    finally:
        thread.join()


def _ask_for(paths: Sequence[Path], failed: Event) -> None:
    for path in paths:
        with path.open("rb") as file:
            for start in range(0, path.stat().st_size, STEP):
                if failed.is_set():
                    return
                os.posix_fadvise(file.fileno(), start, STEP, os.POSIX_FADV_WILLNEED)
