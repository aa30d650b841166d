"""The next token of each sequence, chosen on a GPU without a word to the host. To be imported only where Triton is."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from roslin.engine.gpu import drawing
from roslin.engine.request import Sampling
from roslin.engine.sampler import COLDEST, HOTTEST

BLOCK = 4096
"""Logits that a program looks at at one time."""
WARPS = 16


class Draws(NamedTuple):
    """The keys of the rows' steps in their random streams, and their limits as of `limits_of`."""

    keys_B: npt.NDArray[np.int64]
    limits_B4: npt.NDArray[np.float32]


def limits_of(samplings: Sequence[Sampling]) -> npt.NDArray[np.float32]:
    """What each may draw from, [B, 4]: temperature, top_p, top_k, 0; a temperature of 0 takes the best."""
    temperatures_B = np.array([sampling.temperature for sampling in samplings])
    top_p_B = np.array([sampling.top_p for sampling in samplings])
    drawn_B = temperatures_B > 0
    limits_B4 = np.zeros((len(samplings), 4), dtype=np.float32)
    limits_B4[:, 0] = np.where(drawn_B, temperatures_B.clip(COLDEST, HOTTEST), 0)
    limits_B4[:, 1] = np.where(drawn_B & (top_p_B < 1), top_p_B, 0)
    limits_B4[:, 2] = np.where(drawn_B, [sampling.top_k for sampling in samplings], 0)
    return limits_B4


def choose(
    logits_BV: Tensor, vocabulary: int, draws: tuple[Tensor, Tensor] | None, ids_B: Tensor, logprobs_B: Tensor
) -> None:
    """Put an id below `vocabulary` for each row into `ids_B` (int64), its log-probability among all into `logprobs_B`.

    `draws` are the keys of the rows' steps, [B], int64, and their limits, [B, 4], float32; None: all take the best.
    """
    keys_B, limits_B4 = (ids_B, logprobs_B) if draws is None else draws
    drawing.draw[(len(logits_BV),)](
        ids_B, logprobs_B, logits_BV, keys_B, limits_B4, logits_BV.stride(0), vocabulary, logits_BV.shape[1],
        draws is not None, min(BLOCK, 1 << (logits_BV.shape[1] - 1).bit_length()), num_warps=WARPS,
    )  # fmt: skip


def chosen(
    logits_BV: Tensor,
    vocabulary: int,
    drawn: Draws | None,
    sent: Callable[[npt.NDArray[Any]], Tensor],
) -> tuple[Tensor, Tensor]:
    """The id that is drawn for each row, [B], and its log-probability; `sent` brings numbers to the device."""
    draws = None if drawn is None else (sent(drawn.keys_B), sent(drawn.limits_B4))
    ids_B = torch.empty(len(logits_BV), dtype=torch.int64, device=logits_BV.device)
    logprobs_B = torch.empty(len(logits_BV), device=logits_BV.device)
    choose(logits_BV, vocabulary, draws, ids_B, logprobs_B)
    return ids_B, logprobs_B
