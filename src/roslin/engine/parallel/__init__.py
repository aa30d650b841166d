"""One model in several processes (tensor parallelism): each has some heads and some of the MLP of every layer."""

from roslin.engine.parallel.decoder import ParallelDecoder
from roslin.engine.parallel.team import OutOfStep, is_first_process, several_processes
from roslin.engine.parallel.together import hold_together

__all__ = ["OutOfStep", "ParallelDecoder", "hold_together", "is_first_process", "several_processes"]
