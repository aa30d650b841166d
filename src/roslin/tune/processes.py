"""The processes of one run: one by itself, or several that torchrun has started, which know and hear each other."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed import HashStore, PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from roslin.errors import MachineError, RoslinError, UsageError, out_of_memory
from roslin.tune.heartbeats import Heartbeats
from roslin.tune.meeting import meet
from roslin.tune.stopping import TERMINATED, Interrupted, termination

T = TypeVar("T")

AFTER_US = 60.0
"""Seconds by which torch's own time limit comes after ours, which can name who is late."""


class LostProcess(MachineError):
    """Another process of the run has died, hangs or was ended by an error of its own."""


class Told(RoslinError):
    """An error that another process of the run has told already."""

    def __init__(self, error: RoslinError) -> None:
        super().__init__(str(error))
        self.exit_code = error.exit_code


@dataclass(frozen=True)
class Processes:
    """All processes of a run, as one of them sees them. One alone asks nobody."""

    rank: int = 0
    count: int = 1
    group: "dist.ProcessGroup | None" = None
    """For what is small and lies in ordinary memory: gloo, whatever the GPUs speak."""
    heartbeats: Heartbeats | None = None

    @property
    def share_a_model(self) -> bool:
        """Whether the model is in shards: always of many, and of one that keeps its shard in the CPU's memory."""
        return self.group is not None

    @property
    def is_first(self) -> bool:
        """Whether this is the one that prints and writes."""
        return self.rank == 0

    def step(self) -> None:
        """Note that this process goes on: to be called wherever all of them come by."""
        if self.heartbeats:
            self.heartbeats.step()

    def collected(self, value: T) -> list[T]:
        """Every process's value, in the order of ranks."""
        if self.count == 1:
            return [value]
        values: list[T | None] = [None] * self.count
        dist.all_gather_object(values, value, group=self.group)
        return values  # type: ignore[return-value]

    def total(self, value: float) -> float:
        """The sum over all processes, in the order of ranks: the same number to the last bit on each."""
        return sum(self.collected(value))

    def any(self, flag: bool) -> bool:
        """Whether it is so on any of them."""
        return any(self.collected(flag))

    def first_does(self, work: Callable[[], None]) -> None:
        """Have the first process do something while the others wait. A RoslinError of it is raised on all."""
        error = None
        if self.is_first:
            try:
                work()
            except RoslinError as caught:
                error = caught
        [failed, *_] = self.collected(error)
        if failed is not None:
            raise failed

    def part(self, items: Sequence[T]) -> list[T]:
        """This process's share of what is dealt out one by one."""
        return list(items[self.rank :: self.count])


ALONE = Processes()


def rank_here() -> int:
    """The rank that torchrun gave this process; 0 where it did not start it."""
    return int(os.environ.get("RANK", "0"))


def local_rank_here() -> int:
    """The same among the processes of this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def restarts() -> int:
    """How often torchrun has started the processes again after one was lost."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@contextmanager
def joined(device: torch.device, limit: float, *, offload: bool = False) -> Iterator[Processes]:
    """Join the other processes that torchrun started, if there are any, on a device of this type.

    `limit` is how long (seconds) all may wait for one. With `offload` one process by itself has a model in shards, too:
    in one, which need not be on its GPU. Raises LostProcess naming the process by which an exchange failed, UsageError
    where there are more processes on the machine than GPUs, and Told instead of a RoslinError that another process has
    raised before: that one tells it.
    """
    is_alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    if is_alone and not (offload and device.type == "cuda"):
        yield ALONE
        return
    patience = timedelta(seconds=limit + AFTER_US)
    shared, rank, count = (HashStore(), 0, 1) if is_alone else next(rendezvous("env://", timeout=patience))
    store = meet(shared, rank, count, limit)
    own_store = store.clone()  # type: ignore[attr-defined]  # a thread needs one of its own
    heartbeats = Heartbeats(PrefixStore("heartbeats", own_store), rank, count, limit)
    heartbeats.start()
    with termination() as ignore_it:
        try:
            if device.type == "cuda":
                _take_gpu()
                # NCCL's own watch would end this process at another's death before heartbeats can give that a name.
                os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=patience)
            yield Processes(rank, count, dist.new_group(backend="gloo", timeout=patience), heartbeats)
        except Interrupted:
            heartbeats.end()
            raise
        except BaseException as error:
            ignore_it()
            _explain(error, heartbeats)
            raise
        heartbeats.end()
    dist.destroy_process_group()


def _explain(error: BaseException, heartbeats: Heartbeats) -> None:
    """Tell the other processes, and raise LostProcess or Told where one of them is behind the error or has met it."""
    lost = heartbeats.find_lost() if _is_about_others(error) else None
    told = LostProcess(lost) if lost else error
    is_known = isinstance(told, RoslinError) and not heartbeats.first_to_tell(str(told))
    heartbeats.end(_first_line(told))
    if isinstance(told, RoslinError) and is_known:
        raise Told(told) from error
    if lost:
        raise told from error


def _is_about_others(error: BaseException) -> bool:
    """Whether another process may be behind it: an exchange has failed, or torchrun ends all of them."""
    if isinstance(error, SystemExit):
        return error.code == TERMINATED
    return isinstance(error, RuntimeError) and not out_of_memory(error)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _take_gpu() -> None:
    local, there = local_rank_here(), torch.cuda.device_count()
    if local >= there:
        raise UsageError(f"torchrun started more processes here than there are GPUs: --nproc-per-node {there} at most.")
    torch.cuda.set_device(local)
