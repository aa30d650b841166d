"""`roslin tune` for torchrun in the tests: something befalls one process of it in the midst of an update.

Arguments: a recipe, and which signal (a number) which rank gets in which update. A signal below zero is for the whole
machine: torchrun gets it first.
"""

import os
import sys
from typing import Any

from roslin.cli.main import main
from roslin.tune import loop


def befall(signal: int, rank: int, update: int) -> None:
    real, begun = loop.accumulate, 0

    def accumulate(*args: Any) -> float:
        nonlocal begun
        begun += 1
        if begun == update and os.environ["RANK"] == str(rank) and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            if signal < 0:
                os.kill(os.getppid(), -signal)
            os.kill(os.getpid(), abs(signal))
        return real(*args)

    loop.accumulate = accumulate


if __name__ == "__main__":
    _, recipe, *what = sys.argv
    if what:
        befall(*map(int, what))
    sys.argv = ["roslin", "tune", recipe]
    main()
