"""Tensors in torch's distributed checkpoint format: written by any number of processes, read by any other number."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from roslin.tune.processes import Processes

Tensors = Mapping[str, Tensor]


class _Failed(Exception):
    """What went wrong on whichever process it did."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Unwritable(_Failed):
    """Tensors could not be written."""


class Unreadable(_Failed):
    """A file is missing or damaged, or holds other tensors."""


def write_tensors(tensors: Tensors, folder: Path, processes: Processes) -> None:
    """Write tensors by name; every process its rows of those that are cut up. Raises Unwritable on all of them."""
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    values = dict(tensors)
    _attempt(
        lambda: save(
            values,
            storage_writer=FileSystemWriter(folder),
            process_group=processes.group,
            no_dist=processes.count == 1,
        ),
        Unwritable,
    )


def read_tensors(folder: Path, tensors: Tensors, processes: Processes) -> None:
    """Read into tensors by name, however they were cut up when they were written. Raises Unreadable on all of them."""
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    values = {name: tensor.detach() for name, tensor in tensors.items()}
    try:
        FileSystemReader(folder).read_metadata()
    except Exception as error:  # whatever a damaged file makes of itself
        raise Unreadable(error) from error
    _attempt(
        lambda: load(
            values,
            storage_reader=FileSystemReader(folder),
            process_group=processes.group,
            no_dist=processes.count == 1,
        ),
        Unreadable,
    )


def _attempt(work: Callable[[], object], failure: type[_Failed]) -> None:
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process by itself needs it not
            work()
    except CheckpointException as error:
        [cause, *_] = [caught for caught, _ in error.failures.values()]
        if not isinstance(cause, Exception):  # Ctrl-C in the midst of it
            raise cause from None
        raise failure(cause) from error
