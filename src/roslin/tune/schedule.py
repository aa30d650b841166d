"""The learning rate of each update: a linear warm-up, then constant, linear or cosine."""

import math
from typing import Literal


def learning_rate(
    update: int, *, peak: float, schedule: Literal["constant", "linear", "cosine"], warmup: int, total: int
) -> float:
    """Rate of update 1, 2, … `total`. Warm-up reaches the peak at update `warmup`; the two falling schedules end at 0.

    Falling schedules reach zero just after the last update, so that the last one still teaches something.
    """
    if update <= warmup:
        return peak * update / warmup
    done = (update - 1 - warmup) / max(1, total - warmup)
    match schedule:
        case "constant":
            return peak
        case "linear":
            return peak * (1 - done)
        case "cosine":
            return peak * (1 + math.cos(math.pi * done)) / 2
