"""Curves as TensorBoard's event files, in the run's folder."""

from collections.abc import Mapping
from typing import Any

from roslin.tune.trackers.tracker import Kind, Outcome, Points, TrackedRun


class TensorBoard:
    """Writes `tensorboard/` in the run's folder."""

    name = "tensorboard"

    def start(self, run: TrackedRun) -> Mapping[Kind, int]:
        """Hide the points after the update from which the run goes on; those before it are in earlier event files."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.goes_on_from + 1)
        return {"update": run.goes_on_from, "evaluation": run.goes_on_from}

    def add(self, points: Points) -> None:
        """Add points, and have them in the file: those before a checkpoint are never written again."""
        for name, value in points.values.items():
            self._writer.add_scalar(name, value, points.update)
        self._writer.flush()

    def close(self, outcome: Outcome) -> None:
        """Close the event file; how a run ended has no place in it."""
        self._writer.close()
