"""How the kernels for one token are launched: shapes of tiles, and whether a kernel may start early."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import triton

from roslin.engine.gpu.vector_kernels import HAS_EARLY

if TYPE_CHECKING:
    from collections.abc import Sequence

MANY_ROWS = 8192
"""With so many rows even large tiles are enough programs for a GPU."""


@dataclass(frozen=True)
class Launch:
    """A program of `warps` warps takes `rows` rows of the matrix, `block` columns at a time.

    `early`: 0 starts after the kernel before; 1 fetches a tile of the matrix while that one ends; 2 also, in a sum of
    two products, takes the one of the MLP while attention runs.
    """

    rows: int
    block: int
    warps: int = 4
    early: int = 0

    @property
    def options(self) -> dict[str, int | bool]:
        """What Triton is told beside a kernel's arguments."""
        told: dict[str, int | bool] = {"num_warps": self.warps, "num_stages": 1}
        return told | ({"launch_pdl": True} if self.early else {})


Launches = dict[str, Launch]
"""By the name of a product."""


def starts_early(device: torch.device) -> bool:
    """Whether kernels on this device can start before the one before has ended."""
    return HAS_EARLY and device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def usual_launch(widths: Sequence[int], bits: int) -> Launch:
    """What does for a matrix whose sources have these widths, of numbers of so many bits.

    A thread reads 16 bytes of a row at one time, and as many warps share a row as leave none of them idle at its end.
    """
    for warps in (4, 2, 1):
        block = warps * 4096 // bits
        if all(width % block == 0 for width in widths):
            return Launch(4, block, warps)
    return Launch(4, min(16384 // bits, triton.next_power_of_2(max(widths))))


def few_launch(rows: int, bits: int) -> Launch:
    """The same for a few tokens: 256 bytes of a row at one time."""
    return Launch(32 if rows >= MANY_ROWS else 16, 2048 // bits, 4 if rows >= MANY_ROWS else 2)


def few_stages(bits: int) -> int:
    """Tiles on their way at one time where a few tokens are multiplied; those in 4 bits have four times the columns."""
    return 2 if bits == 4 else 4
