"""Checkpoints: the whole state of a run, written so that a kill at any moment leaves the last good one.

Tensors are in torch's distributed format: however many processes write one, any number of them reads it.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from roslin.errors import InputError, write_failed
from roslin.tune.processes import ALONE, Processes
from roslin.tune.tensor_files import Unreadable, Unwritable, read_tensors, write_tensors

_PARTIAL = ".partial"
_PROGRESS = "progress.json"

Tensors = Mapping[str, torch.Tensor]


@dataclass
class Progress:
    """Where a run stands between two updates. The data order follows from it and the recipe's seed."""

    update: int = 0
    tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0
    """Of stepping alone: no evaluation, sample or checkpoint is in it."""
    held_out: float | None = None
    """The newest held-out loss."""
    best_held_out: float | None = None
    best_update: int = 0
    evaluations_since_best: int = 0
    stopped_early: bool = False
    loss_scale: float = 2.0**16
    """Of passes in fp16, see `loss_scale`."""
    updates_at_scale: int = 0
    """Updates since the scale was last changed."""
    fingerprint: str = ""
    """Of the recipe, the base and the examples; a checkpoint continues only the run that it came from."""


class Checkpoints:
    """The checkpoints of one run, newest last, in `folder`; and the best weights by held-out loss.

    Every process of the run has one and calls it at the same time. Each writes its own parts, which is why many
    machines need a folder that they share; the first one gives a checkpoint its name once all of it is there.
    """

    def __init__(self, folder: Path, keep: int, processes: Processes = ALONE) -> None:
        """Use `folder`, which need not exist; what an interrupted write left there is removed."""
        self.folder = folder
        self._keep = keep
        self._processes = processes
        self._best_of_newest: str | None = None
        processes.first_does(self._clear)

    def save(self, progress: Progress, tensors: Tensors) -> None:
        """Write one checkpoint and drop the oldest beyond those kept. Raises MachineError when the disk is full."""
        values = json.dumps(asdict(progress), indent=1)
        self._write(self.folder / f"update-{progress.update:06d}", tensors, values)
        self._processes.first_does(self._drop_old)
        self._best_of_newest = _best_name(progress.best_update)

    def save_best(self, weights: Tensors, update: int) -> None:
        """Keep the weights of the lowest held-out loss so far, beside those that the newest checkpoint speaks of."""
        self._write(self.folder / _best_name(update), weights)
        self._processes.first_does(lambda: self._drop_old_best(update))

    def load_best(self, weights: Tensors, update: int) -> None:
        """Read the weights that `save_best` kept at `update` into those given."""
        self._read(self.folder / _best_name(update), weights)

    def newest(self) -> Path | None:
        """Folder of the newest whole checkpoint."""
        found = self._all()
        newest, *_ = self._processes.collected(found[-1] if found else None)
        return newest

    def progress(self, checkpoint: Path) -> Progress:
        """Where the run stood. Raises InputError for a checkpoint that cannot be read."""
        try:
            progress = Progress(**json.loads((checkpoint / _PROGRESS).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise _unreadable(checkpoint / _PROGRESS, error) from None
        self._best_of_newest = _best_name(progress.best_update)
        return progress

    def load(self, checkpoint: Path, tensors: Tensors) -> None:
        """Read a checkpoint into the tensors given, which have the names and shapes of those that were saved."""
        self._read(checkpoint, tensors)

    def drop(self, update: int) -> None:
        """Remove the checkpoint of an update that turned out to be bad."""
        self._processes.first_does(lambda: self._remove(path for path in self._all() if _number(path) == update))

    def _all(self) -> list[Path]:
        found = [path for path in self.folder.glob("update-*") if not path.name.endswith(_PARTIAL)]
        return sorted(found, key=_number)

    def _clear(self) -> None:
        self._remove(self.folder.glob(f"*{_PARTIAL}"))

    def _drop_old(self) -> None:
        self._remove(self._all()[: -self._keep])

    def _drop_old_best(self, update: int) -> None:
        kept = (_best_name(update), self._best_of_newest)
        self._remove(old for old in self.folder.glob("best-*") if old.name not in kept)

    @staticmethod
    def _remove(folders: Iterable[Path]) -> None:
        for folder in list(folders):
            shutil.rmtree(folder)

    def _write(self, target: Path, tensors: Tensors, progress: str | None = None) -> None:
        """Write a folder that takes the name `target` only when all of it is on the disk."""
        partial = target.with_name(target.name + _PARTIAL)
        self._processes.first_does(lambda: _make_empty(partial, target))
        try:
            write_tensors(tensors, partial, self._processes)
        except Unwritable as error:
            if self._processes.is_first:
                shutil.rmtree(partial, ignore_errors=True)
            raise write_failed(target, error.cause) from error
        self._processes.first_does(lambda: _finish(partial, target, progress))

    def _read(self, checkpoint: Path, tensors: Tensors) -> None:
        try:
            read_tensors(checkpoint, tensors, self._processes)
        except Unreadable as error:
            raise _unreadable(checkpoint, error.cause) from error


def _number(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("update-"))


def _best_name(update: int) -> str:
    return f"best-{update:06d}"


def _unreadable(path: Path, error: BaseException) -> InputError:
    folder = path.parent if path.name == _PROGRESS else path
    return InputError(
        f"{path}: cannot be read ({error}). Remove {folder}: the run goes on from an earlier checkpoint if there "
        "is one, else from its start."
    )


def _make_empty(partial: Path, target: Path) -> None:
    with _saying_what_failed(target):
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)


def _finish(partial: Path, target: Path, progress: str | None) -> None:
    with _saying_what_failed(target):
        if progress is not None:
            (partial / _PROGRESS).write_text(progress, encoding="utf-8")
        for path in [*partial.iterdir(), partial]:
            flush(path)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
        flush(target.parent)


@contextmanager
def _saying_what_failed(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise write_failed(target, error) from error


def flush(path: Path) -> None:
    """Have the system put a file or folder on the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
