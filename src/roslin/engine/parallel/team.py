"""The processes that hold one model together: what they sum, what they agree on, and who tells whom what to compute.

Numbers cross by torch.distributed: gloo on CPUs, NCCL between GPUs. What is to be computed crosses by `lines`, on which
a process can wait for hours.
"""

import os
import pickle
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from roslin.engine.parallel.lines import Line, Lines, Whereabouts, listen
from roslin.errors import MachineError, UsageError, out_of_memory
from roslin.model.share import Share

T = TypeVar("T")

LIMIT = 600.0
"""Seconds that an exchange may take in which one waits for another."""


class OutOfStep(MachineError):
    """The processes no longer compute the same: one is lost, or was interrupted amid a pass. It has been told."""

    is_told = True


@dataclass(frozen=True)
class End:
    """The last order: there is nothing more to do."""


def several_processes() -> bool:
    """Whether torchrun has started this process and others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first_process() -> bool:
    """Whether this is the one that others work for, or alone."""
    return int(os.environ.get("RANK", "0")) == 0


class Team:
    """All processes, as one of them sees them."""

    def __init__(self, device: torch.device, limit: float = LIMIT) -> None:
        """Meet the others that torchrun has started. `limit` (seconds) bounds every later exchange.

        `device` says of which type all are; on GPUs each takes that of its local rank. Raises UsageError where there
        are more processes here than GPUs, for a GPU by number, and where this process shares a model already.
        """
        if dist.is_initialized():
            raise UsageError("This process shares a model already: torchrun's processes can hold one at a time.")
        self.device = _own(device)
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            # NCCL's own watch would end this process before it can say whom it has lost.
            os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
        patience = timedelta(seconds=limit)
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=patience)
        self._group: dist.ProcessGroup | None = dist.group.WORLD
        if on_gpu:
            self._group = dist.new_group(backend="gloo", timeout=patience)
        self.share = Share(dist.get_rank(), dist.get_world_size())
        hosts = [where.host for where in self.collected(Whereabouts.here(self.share.rank))]
        self.neighbours = hosts.count(hosts[self.share.rank])
        """How many of the processes are on this machine."""
        self._lines: Lines | None = None
        self._line: Line | None = None
        self._connect(hosts)
        self._wrong = ""

    @property
    def is_first(self) -> bool:
        """Whether this is the process that gives orders."""
        return self.share.is_first

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """Of the first process: something that all do, whole or never again.

        Raises OutOfStep when another one is lost, and from then on at once.
        """
        if self._wrong:
            raise OutOfStep(self._wrong)
        try:
            yield
        except BaseException as error:
            self._wrong = "The model's processes are out of step after an error or an interruption; start them again."
            if not isinstance(error, Exception):
                raise
            assert self._lines is not None
            in_exchange = isinstance(error, RuntimeError | OSError) and not out_of_memory(error)
            if in_exchange:
                self._wrong = self._lines.find_lost() or f"The model's processes do not meet: {_first_line(error)}"
            self._lines.give_up(self._wrong)
            if in_exchange:
                raise OutOfStep(self._wrong) from error
            raise

    def order(self, what: object, tensors: Sequence[Tensor] = ()) -> None:
        """Of the first process: have the others do something with copies of these tensors."""
        assert self._lines is not None
        self._lines.send(pickle.dumps((what, [(tuple(tensor.shape), tensor.dtype) for tensor in tensors])))
        for tensor in tensors:
            dist.broadcast(tensor, 0)

    def next_order(self) -> tuple[object, list[Tensor]]:
        """Of another process: what it is told, whenever that is. Raises EOFError when the first one is gone."""
        what, kinds = self.hear()
        tensors = [torch.empty(shape, dtype=dtype, device=self.device) for shape, dtype in kinds]
        for tensor in tensors:
            dist.broadcast(tensor, 0)
        return what, tensors

    def hear(self) -> tuple[object, list[tuple[tuple[int, ...], torch.dtype]]]:
        """Of another process: an order, and of what kinds the tensors are that come with it."""
        what, kinds = pickle.loads(self.line.receive())
        return what, kinds

    def sum(self, x: Tensor) -> Tensor:
        """The sum of every process's tensor, in its place. On a CPU it is taken in fp32."""
        if x.device.type == "cpu" and x.dtype != torch.float32:
            return x.copy_(self.sum(x.float()))
        dist.all_reduce(x)
        return x

    def gathered(self, x_NV: Tensor) -> Tensor | None:
        """The first process has all the columns, in the order of ranks; None elsewhere. On a CPU they come in fp32."""
        x_NV = (x_NV.float() if x_NV.device.type == "cpu" else x_NV).contiguous()
        parts = [torch.empty_like(x_NV) for _ in range(self.share.count)] if self.is_first else None
        dist.gather(x_NV, parts, 0)
        return torch.cat(parts, 1) if parts else None

    def all_agree(self, flag: bool) -> bool:
        """Whether it is so everywhere."""
        flag_1 = torch.tensor([int(flag)])
        dist.all_reduce(flag_1, dist.ReduceOp.MIN, group=self._group)
        return bool(flag_1)

    def collected(self, value: T) -> list[T]:
        """Every process's value, in the order of ranks."""
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value, group=self._group)
        return values

    def dismiss(self) -> None:
        """Of the first process: let the others go."""
        assert self._lines is not None
        self._lines.end(pickle.dumps((End(), [])))
        if not self._wrong:
            self.leave()

    def leave(self) -> None:
        """Part with the others, which do so too, when every exchange has ended, and the threads that made it.

        A thread that still had a tensor to let go of while the interpreter ends would abort the process.
        """
        self._group = None  # with the last reference to a group its threads end
        dist.destroy_process_group()

    @property
    def line(self) -> Line:
        """Of another process: that to the first one."""
        assert self._line is not None
        return self._line

    def _connect(self, hosts: Sequence[str]) -> None:
        key = secrets.token_bytes(32)
        if self.is_first:
            listener, address = listen(hosts, key)
            self.collected((address, key))
            self._lines = Lines(listener, self.share.count - 1)
        else:
            [(address, key), *_] = self.collected((("", 0), b""))
            self._line = Line(address, key, self.share.rank)


def _own(device: torch.device) -> torch.device:
    """This process's device."""
    if device.type != "cuda":
        return device
    if device.index is not None:
        raise UsageError(f"device is {device}: of several processes each takes a GPU of its own. Leave the number out.")
    local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= there:
        raise UsageError(f"torchrun started more processes here than there are GPUs: --nproc-per-node {there} at most.")
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
