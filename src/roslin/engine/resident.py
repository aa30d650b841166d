"""What stays on the device from pass to pass, so that a pass can begin before the last one's tokens are read."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from roslin.engine.slots import Slots


class Resident:
    """Every slot's blocks, `tables_SW` (int32), its latest token, `latest_S`, and when it ends, `ends_SX` (int64).

    A sequence's first number there is the last position that it computes: that one at which it was told to end, or at
    which it has drawn one of its stop ids, which stand behind it. So passes may begin before the host knows who ended:
    what computes a later position is nobody's.

    There is one slot more than sequences can have: `spare`, which is nobody's.
    """

    def __init__(self, slots: Slots, device: torch.device) -> None:
        """`slots` is the host's side of it."""
        self.spare, width = slots.rows_SW.shape
        self.device = device
        self.tables_SW = torch.zeros(self.spare + 1, width, dtype=torch.int32, device=device)
        self.latest_S = torch.zeros(self.spare + 1, dtype=torch.int64, device=device)
        self.ends_SX = torch.full((self.spare + 1, slots.ends_SX.shape[1]), -1, dtype=torch.int64, device=device)
        self.slots = slots

    def update(self) -> None:
        """Send the blocks of those slots that have new ones, and the ends of those that have new sequences."""
        newcomers = self.slots.newcomers()
        if newcomers:
            own = self.sent(np.array(newcomers))
            self.ends_SX.index_copy_(0, own, self.sent(self.slots.ends_SX[newcomers]))
        changed, width = self.slots.changes()
        if changed:
            rows_CX = np.empty((len(changed), 1 + width), dtype=np.int32)
            rows_CX[:, 0] = changed
            rows_CX[:, 1:] = self.slots.rows_SW[changed, :width]
            sent_CX = self.sent(rows_CX)
            self.tables_SW[:, :width].index_copy_(0, sent_CX[:, 0].long(), sent_CX[:, 1:])

    def send(self, numbers: npt.NDArray[Any], there: Tensor) -> None:
        """Numbers of the host to a place on the device, without waiting for what that does."""
        tensor = torch.from_numpy(numbers)
        there.copy_(tensor.pin_memory() if self.device.type == "cuda" else tensor, non_blocking=True)

    def sent(self, numbers: npt.NDArray[Any]) -> Tensor:
        """Numbers of the host on the device, without waiting for what that does."""
        tensor = torch.from_numpy(numbers)
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)
