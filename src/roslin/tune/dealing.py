"""Dealing an update's rows to the processes of a run, so that all work about as long and run equally many passes."""

from collections.abc import Sequence

import torch

from roslin.tune.packing import Pack

NOTHING = Pack(
    ids_N=torch.zeros(1, dtype=torch.long),
    lengths=[1],
    predict_M=torch.zeros(0, dtype=torch.long),
    target_M=torch.zeros(0, dtype=torch.long),
)
"""A pass that nothing is learned from: processes whose rows are fewer run it, for all must meet in every pass."""


def deal(rows: Sequence[list[int]], lengths: Sequence[int], count: int) -> list[list[list[int]]]:
    """Each process's rows of an update: from the longest down, always to the process with the fewest tokens so far.

    `lengths` are the examples'. Rows keep their order; where they are fewer than processes, some processes get none.
    """
    sizes = [sum(lengths[i] for i in row) for row in rows]
    dealt: list[list[int]] = [[] for _ in range(count)]
    tokens = [0] * count
    for place in sorted(range(len(rows)), key=lambda place: -sizes[place]):
        least = tokens.index(min(tokens))
        dealt[least].append(place)
        tokens[least] += sizes[place]
    return [[rows[place] for place in sorted(part)] for part in dealt]


def padded(packs: Sequence[Pack], passes: int) -> list[Pack]:
    """These packs and as many empty ones as make `passes`."""
    return [*packs, *[NOTHING] * (passes - len(packs))]
