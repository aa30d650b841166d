"""What a run reports: a line an update for people, JSONL for programs and for trackers of curves."""

import json
import math
import resource
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from roslin.errors import write_failed
from roslin.memory import known_gpu
from roslin.statistics import Interval
from roslin.tune.held_out import HeldOutLoss

RESAMPLES_WHILE_TUNING = 1000
"""Enough to see an interval on a curve, in a tenth of the time; the run's end and its card resample in full."""


@dataclass(frozen=True)
class UpdateLog:
    """One update as it is logged."""

    update: int
    updates: int
    epoch: float
    loss: float
    """Nats an answer token, over the whole update."""
    held_out: float
    """The newest held-out loss."""
    learning_rate: float
    grad_norm: float
    records: int
    tokens: int
    """Real tokens of this update; there are no others in a pack."""
    tokens_per_second: float
    """Since the run (or its resumption) started stepping."""
    mfu: float | None
    """Share of the device's peak, where the peak is known."""
    memory_gib: float
    seconds_left: float
    loss_scale: float | None = None
    """What losses are multiplied with before a backward pass in fp16."""

    def line(self) -> str:
        """The update in one line."""
        parts = [
            f"update {self.update}/{self.updates}",
            f"loss {self.loss:.3f}",
            f"held-out {self.held_out:.3f}",
            f"lr {self.learning_rate:.2e}",
            f"|g| {self.grad_norm:.2f}",
            f"{self.tokens_per_second:,.0f} tokens/s",
            f"MFU {self.mfu:.1%}" if self.mfu is not None else None,
            f"{self.memory_gib:.1f} GiB",
            f"loss × {self.loss_scale:,.0f}" if self.loss_scale is not None else None,
            f"{clock(self.seconds_left)} left",
        ]
        return " · ".join(part for part in parts if part)


@dataclass(frozen=True)
class EvaluationLog:
    """One measurement of the held-out loss."""

    update: int
    held_out: HeldOutLoss
    best: bool
    """Whether it is the lowest so far."""

    def summary(self) -> dict[str, Any]:
        """The figures that go into the log; 95 % intervals over records, null where records are too few for one."""
        parts = self.held_out.parts()
        return {
            "update": self.update,
            "held_out": self.held_out.loss,
            "interval": _ends(self.held_out.interval(RESAMPLES_WHILE_TUNING)),
            "held_out_without_end": self.held_out.loss_without_end,
            "by_category": self.held_out.by_category(),
            "interval_by_category": {
                name: _ends(part.interval(RESAMPLES_WHILE_TUNING)) for name, part in parts.items()
            },
            "records_by_category": {name: len(part.tokens) for name, part in parts.items()},
            "best": self.best,
        }


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


class LogFile:
    """log.jsonl of a run. A resumed run cuts it back to its checkpoint, so no update stands in it twice."""

    def __init__(self, path: Path, *, keep_until: int) -> None:
        """Open for appending; lines of updates after `keep_until`, and a line cut by a crash, are dropped."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        kept = [line for line in _whole_lines(path) if _update_of(line) <= keep_until]
        partial = path.with_suffix(".partial")
        try:
            partial.write_text("".join(kept), encoding="utf-8")
            partial.replace(path)
            self._file = path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise write_failed(path, error) from error

    def write(self, kind: str, values: dict[str, Any]) -> None:
        """Append one line. Raises MachineError when the disk is full."""
        try:
            self._file.write(json.dumps({"kind": kind, **values}) + "\n")
        except OSError as error:
            raise write_failed(self._path, error) from error

    def lines(self) -> list[dict[str, Any]]:
        """All lines so far."""
        return read_log(self._path)

    def close(self) -> None:
        """Close the file; what could not be written was already told."""
        with suppress(OSError):
            self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log.jsonl, parsed, each with its `kind` and `update`; one that a crash cut off is left out."""
    return [json.loads(line) for line in _whole_lines(path) if math.isfinite(_update_of(line))]


def _whole_lines(path: Path) -> Iterable[str]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield line


def _update_of(line: str) -> float:
    """The update of a logged line; infinite for a line that is none, so that it is dropped."""
    try:
        return float(json.loads(line)["update"])
    except (ValueError, TypeError, KeyError):
        return math.inf


def memory_gib(device: torch.device) -> float:
    """Peak memory so far, in GiB: the device's allocations, or this process's resident set on CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def peak_flops(device: torch.device) -> float | None:
    """The device's peak of dense 16-bit products a second, where it is known."""
    if device.type != "cuda":
        return None
    gpu = known_gpu(torch.cuda.get_device_name(device))
    return None if gpu is None else gpu.flops


def clock(seconds: float) -> str:
    """Seconds as 0:42, 12:05 or 3:07:09."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
