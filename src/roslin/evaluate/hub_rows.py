"""Rows of benchmarks from the hub, or from the copy of them that `datasets` keeps on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from roslin.errors import MachineError
from roslin.evaluate.tasks import Task
from roslin.model.hub import why_silent
from roslin.records.json_rows import Row


def hub_name(task: Task, split: str) -> str:
    """What messages call a split of a task's data."""
    return "/".join(part for part in (task.path, task.config, split) if part)


def hub_rows(task: Task, split: str) -> Iterator[Row]:
    """Every row of a split; `line` is the number of the row, from 1.

    Raises MachineError where `datasets` is not installed, and where the data is neither on the hub nor on this machine.
    """
    for number, row in enumerate(_load(task, split), 1):
        yield Row(number, row)


def _load(task: Task, split: str) -> Any:
    instead = f"or give --data a folder that holds {task.file_names[0]}_{split}.jsonl."
    try:
        import datasets
    except ImportError:
        raise MachineError(
            f"{task.name}: to read {hub_name(task, split)} from the hub, the package `datasets` is needed: "
            f"pip install 'roslin[eval]', {instead}"
        ) from None
    silent = why_silent()
    try:
        with _not_asking(datasets.config) if silent else nullcontext():
            return datasets.load_dataset(task.path, task.config, split=split)
    except Exception as error:  # of many kinds: from the hub's client, from the network, from the loader
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        where = f"in the copies that `datasets` keeps here ({silent})" if silent else f"on the hub ({reason})"
        raise MachineError(
            f"{task.name}: {hub_name(task, split)} was not found {where}. Load it once where there is a network, and "
            f"later runs need none; {instead}"
        ) from None


@contextmanager
def _not_asking(config: Any) -> Iterator[None]:
    """`datasets` looks at its copies alone, where it would else try for half a minute to reach the hub."""
    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before
