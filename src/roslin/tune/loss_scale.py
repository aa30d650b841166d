"""Loss scaling, by which fp16's narrow range holds gradients: its numbers end at 65,504 and begin at 6e-8.

The loss is multiplied with a power of two before the backward pass and the gradients are divided by it in fp32, so that
neither small ones vanish nor large ones overflow. An update whose gradients overflow all the same changes nothing and
is made again with half the scale: no record is passed over, and the next update begins with what sufficed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from roslin.tune.state import Progress

LEAST = 1.0
"""Where gradients overflow without being scaled, halving helps no more."""
STEADY = 200
"""Updates without an overflow after which twice the scale is tried: the try costs one update where it fails."""


class LossScale:
    """The scale of a run's losses, kept in its progress, so that a resumed run goes on with it."""

    def __init__(self, dtype: torch.dtype, progress: Progress) -> None:
        """Of passes in `dtype`; only those in fp16 are scaled."""
        self._progress = progress if dtype == torch.float16 else None

    @property
    def value(self) -> float:
        """What the loss is multiplied with."""
        return 1.0 if self._progress is None else self._progress.loss_scale

    def lower(self) -> bool:
        """After an overflow: take half the scale. False where that cannot help."""
        if self._progress is None or self._progress.loss_scale <= LEAST:
            return False
        self._progress.loss_scale /= 2
        self._progress.updates_at_scale = 0
        return True

    def held(self) -> None:
        """After an update: it did not overflow."""
        if self._progress is None:
            return
        self._progress.updates_at_scale += 1
        if self._progress.updates_at_scale == STEADY:
            self._progress.loss_scale *= 2
            self._progress.updates_at_scale = 0
