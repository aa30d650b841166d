"""The trackers that a recipe asks for, told of everything that goes into log.jsonl."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from roslin.errors import InputError
from roslin.tune.recipe import Recipe
from roslin.tune.trackers.background import Background
from roslin.tune.trackers.mlflow import MLflow
from roslin.tune.trackers.tensorboard import TensorBoard
from roslin.tune.trackers.tracker import Kind, Outcome, Points, TrackedRun, Tracker, points_of
from roslin.tune.trackers.wandb import WandB

KINDS: Mapping[str, Callable[[], Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}
"""By the name in a recipe, which is the package's and the extra's too."""


def check_installed(recipe: Recipe) -> None:
    """Raise InputError for trackers that the recipe names and whose packages are not there."""
    missing = [name for name in recipe.named_trackers() if not find_spec(name)]
    if missing:
        raise InputError(
            f"The recipe asks for {' and '.join(missing)}, which is not installed: "
            f"pip install 'roslin[{','.join(missing)}]', or leave it out of the recipe's trackers."
        )


class Trackers:
    """All trackers of a run; what one of them does never reaches the run, nor the others."""

    def __init__(self, trackers: Sequence[Tracker], warn: Callable[[str], None]) -> None:
        """`warn` gets a line for each tracker that fails."""
        self._all = [Background(tracker, warn) for tracker in trackers]

    @classmethod
    def of(cls, recipe: Recipe, warn: Callable[[str], None]) -> "Trackers":
        """The recipe's trackers; TensorBoard where it is installed, if the recipe says nothing of any."""
        names = recipe.named_trackers()
        if recipe.trackers is None and recipe.tensorboard is None and find_spec("tensorboard"):
            names = ["tensorboard"]
        return cls([KINDS[name]() for name in names], warn)

    def start(self, run: TrackedRun, past: Iterable[Points]) -> None:
        """Open them; `past` are the points of the log so far, for those that missed some."""
        if self._all:
            points = list(past)
            for tracker in self._all:
                tracker.start(run, points)

    def add(self, kind: Kind, values: Mapping[str, Any]) -> None:
        """Hand on what goes into log.jsonl."""
        if self._all:
            points = points_of(kind, values)
            for tracker in self._all:
                tracker.add(points)

    def close(self, outcome: Outcome) -> None:
        """Close them, with patience for those that are behind."""
        for tracker in self._all:
            tracker.close(outcome)
        for tracker in self._all:
            tracker.wait()
