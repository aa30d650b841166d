"""How a bf16 matrix becomes fp8 with one scale, in plain torch: what the kernels of fp8_kernels.py do, bit by bit."""

import torch
from torch import Tensor
from torch.nn import functional as F

TINY = 2.0**-100
"""The least magnitude a matrix is scaled by, so that one of zeros has a scale. What lies far below is taken as zero."""

ALIGNMENT = 16
"""Every matrix of an fp8 product has a multiple of this many numbers along the contraction, and of output columns."""


def padded(count: int) -> int:
    """The next multiple of the alignment."""
    return -(-count // ALIGNMENT) * ALIGNMENT


def amax(x_ND: Tensor) -> Tensor:
    """The largest magnitude of a matrix: fp32, no dimensions, on its device."""
    return x_ND.abs().amax().float()


def quantise(
    x_ND: Tensor, largest: Tensor, dtype: torch.dtype, top: float, rows: bool, transposed: bool
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """The copies asked for, by rows [N, D] and transposed [D, N padded], and the fp32 scalar that brings them back.

    `largest` becomes `top`, the largest number of `dtype`; what lies above it (a magnitude given too small) saturates,
    NaN stays. The padding is zeros.
    """
    bound = largest.clamp(min=TINY)
    # A tensor, since torch divides a plain number by a tensor with an error of its own.
    limit = torch.full_like(bound, top)
    scaled_ND = (x_ND.float() * (limit / bound)).clamp(-top, top)
    rows_ND = scaled_ND.to(dtype) if rows else None
    columns_DN = F.pad(scaled_ND.T, (0, padded(len(x_ND)) - len(x_ND))).to(dtype) if transposed else None
    return rows_ND, columns_DN, bound / limit
