"""Where the processes of a run meet: a part of torchrun's store whose name only those started together know.

torchrun keeps its store when it starts processes again, and what those before left in it: addresses of processes long
gone, and signs of their life. How often it has started them is no name to meet under, for a machine that was replaced
counts from 0. So the first process makes a name up, and gives it to each other one that it hears of now.
"""

import time
import uuid

from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from roslin.errors import MachineError

PAUSE = 0.02
"""Seconds between two looks."""


def meet(store: Store, rank: int, count: int, limit: float) -> Store:
    """The part of a store in which these processes alone meet. Raises MachineError naming who has not come in time."""
    hall, deadline = PrefixStore("meeting", store), time.monotonic() + limit
    if rank:
        name = _hear(hall, rank, deadline, limit)
    else:
        name = uuid.uuid4().hex
        _tell(hall, name, set(range(1, count)), deadline, limit)
    return PrefixStore(name, store)


def _tell(hall: Store, name: str, missing: set[int], deadline: float, limit: float) -> None:
    """Answer each process that calls, until it has heard: a call may be one of long ago, and the true one yet come."""
    while missing:
        for rank in sorted(missing):
            if _read(hall, f"heard/{rank}") == name:
                missing.discard(rank)
            elif call := _read(hall, f"call/{rank}"):
                hall.set(f"answer/{rank}", f"{call} {name}")
        _wait(deadline, f"Rank {', '.join(map(str, sorted(missing)))} did not come within {limit:g} s.")


def _hear(hall: Store, rank: int, deadline: float, limit: float) -> str:
    call = uuid.uuid4().hex
    hall.set(f"call/{rank}", call)
    while True:
        answered, _, name = _read(hall, f"answer/{rank}").partition(" ")
        if answered == call:
            hall.set(f"heard/{rank}", name)
            return name
        _wait(deadline, f"Rank 0 did not come within {limit:g} s.")


def _read(hall: Store, key: str) -> str:
    return hall.get(key).decode() if hall.check([key]) else ""


def _wait(deadline: float, failure: str) -> None:
    if time.monotonic() > deadline:
        raise MachineError(f"{failure} All processes must be started together; give the same command again.")
    time.sleep(PAUSE)
