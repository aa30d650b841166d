"""How sequences go on and end on the device, from pass to pass. To be imported only where Triton is."""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from roslin.engine.gpu import end_kernels
from roslin.engine.resident import Resident

ROWS = 128
"""That a program looks at."""


class Begun(NamedTuple):
    """Tokens of a pass, int64: what they are, what turns their keys, and where they are seen (-1: nobody's)."""

    ids_N: Tensor
    positions_N: Tensor
    seen_N: Tensor


def begin(resident: Resident, slots_N: Tensor, positions_N: Tensor, known_N: Tensor | None = None) -> Begun:
    """What a pass computes, [N] each, of sequences in these slots at these positions, int64.

    Ids that nobody on the host knows, -1 in `known_N` (all, where that is None), are the latest ones of their slots;
    they are nobody's where their sequence has ended, or where their position is below 0.
    """
    rows = len(slots_N)
    made = Begun(*(torch.empty(rows, dtype=torch.int64, device=slots_N.device) for _ in range(3)))
    end_kernels.begin[(triton.cdiv(rows, ROWS),)](
        *made, slots_N if known_N is None else known_N, slots_N, positions_N, resident.latest_S, resident.ends_SX,
        rows, resident.ends_SX.shape[1], known_N is not None, ROWS,
    )  # fmt: skip
    return made


def keep(resident: Resident, slots_B: Tensor, seen_B: Tensor, ids_B: Tensor) -> None:
    """Leave the drawn ids in their slots, and end those sequences of whom one is a stop id; no slot comes twice."""
    end_kernels.keep[(triton.cdiv(len(slots_B), ROWS),)](
        resident.latest_S, resident.ends_SX, ids_B, seen_B, slots_B, len(slots_B), resident.ends_SX.shape[1], ROWS
    )
