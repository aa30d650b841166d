"""Checkpoints: the whole state of a run, written so that a kill at any moment leaves the last good one."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from roslin.errors import InputError, write_failed

_PARTIAL = ".partial"

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
    fingerprint: str = ""
    """Of the recipe, the base and the examples; a checkpoint continues only the run that it came from."""


class Checkpoints:
    """The checkpoints of one run, newest last, in `folder`; and the best weights by held-out loss."""

    def __init__(self, folder: Path, keep: int) -> None:
        """Use `folder`, which need not exist; what an interrupted write left there is removed."""
        self.folder = folder
        self._keep = keep
        self._best_of_newest: str | None = None
        for left in folder.glob(f"*{_PARTIAL}"):
            shutil.rmtree(left)

    def save(self, progress: Progress, masters: Tensors, moments: Tensors) -> None:
        """Write one checkpoint and drop the oldest beyond those kept. Raises MachineError when the disk is full."""
        with _written_whole(self.folder / f"update-{progress.update:06d}") as partial:
            save_file(_plain(masters), partial / "masters.safetensors")
            save_file(_plain(moments), partial / "moments.safetensors")
            (partial / "progress.json").write_text(json.dumps(asdict(progress), indent=1), encoding="utf-8")
        for old in self._all()[: -self._keep]:
            shutil.rmtree(old)
        self._best_of_newest = _best_name(progress.best_update)

    def save_best(self, masters: Tensors, update: int) -> None:
        """Keep the masters of the lowest held-out loss so far, beside those that the newest checkpoint speaks of."""
        with _written_whole(self.folder / _best_name(update)) as partial:
            save_file(_plain(masters), partial / "masters.safetensors")
        for old in self.folder.glob("best-*"):
            if old.name not in (_best_name(update), self._best_of_newest):
                shutil.rmtree(old)

    def load_best(self, update: int) -> dict[str, torch.Tensor]:
        """The masters that `save_best` kept at `update`."""
        return _load(self.folder / _best_name(update) / "masters.safetensors")

    def newest(self) -> Path | None:
        """Folder of the newest whole checkpoint."""
        found = self._all()
        return found[-1] if found else None

    def load(self, checkpoint: Path) -> tuple[Progress, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Progress, masters and moments of a checkpoint."""
        try:
            progress = Progress(**json.loads((checkpoint / "progress.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise _unreadable(checkpoint / "progress.json", error) from None
        self._best_of_newest = _best_name(progress.best_update)
        return progress, _load(checkpoint / "masters.safetensors"), _load(checkpoint / "moments.safetensors")

    def drop(self, update: int) -> None:
        """Remove the checkpoint of an update that turned out to be bad."""
        for path in self._all():
            if _number(path) == update:
                shutil.rmtree(path)

    def _all(self) -> list[Path]:
        found = [path for path in self.folder.glob("update-*") if not path.name.endswith(_PARTIAL)]
        return sorted(found, key=_number)


def _number(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("update-"))


def _best_name(update: int) -> str:
    return f"best-{update:06d}"


def _plain(tensors: Tensors) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from None
    return tensors


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path}: cannot be read ({error}). Remove {path.parent}: the run goes on from an earlier checkpoint if there "
        "is one, else from its start."
    )


@contextmanager
def _written_whole(target: Path) -> Iterator[Path]:
    """A folder to write into that takes the name `target` only when all of it is on the disk."""
    partial = target.with_name(target.name + _PARTIAL)
    try:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        yield partial
        for path in partial.iterdir():
            flush(path)
        flush(partial)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
        flush(target.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise write_failed(target, error) from error


def flush(path: Path) -> None:
    """Have the system put a file or folder on the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
