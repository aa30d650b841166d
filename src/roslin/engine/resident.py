"""What stays on the device from pass to pass, so that a pass can begin before the last one's tokens are read."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from roslin.engine.slots import Slots


class Resident:
    """Every slot's blocks, `tables_SW` (int32), and its latest token, `latest_S` (int64).

    There is one slot more than sequences can have: `spare`, which is nobody's.
    """

    def __init__(self, slots: Slots, device: torch.device) -> None:
        """`slots` is the host's side of it."""
        self.spare, width = slots.rows_SW.shape
        self.device = device
        self.tables_SW = torch.zeros(self.spare + 1, width, dtype=torch.int32, device=device)
        self.latest_S = torch.zeros(self.spare + 1, dtype=torch.int64, device=device)
        self.slots = slots

    def update(self) -> None:
        """Send the blocks of those slots that have new ones."""
        changed, width = self.slots.changes()
        if changed:
            rows_CX = np.empty((len(changed), 1 + width), dtype=np.int32)
            rows_CX[:, 0] = changed
            rows_CX[:, 1:] = self.slots.rows_SW[changed, :width]
            sent_CX = self.sent(rows_CX)
            self.tables_SW[:, :width].index_copy_(0, sent_CX[:, 0].long(), sent_CX[:, 1:])

    def sent(self, numbers: npt.NDArray[Any]) -> Tensor:
        """Numbers of the host on the device, without waiting for what that does."""
        tensor = torch.from_numpy(numbers)
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)
