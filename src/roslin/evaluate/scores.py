"""What a model scored: which questions of each task it got right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Metric = Literal["acc", "acc_norm"]
Profile = Literal["raw", "instruct"]


@dataclass(frozen=True)
class TaskScores:
    """One task's questions, in the order of its data, and whether each was answered rightly."""

    task: str
    metric: Metric
    keys: Sequence[str]
    """Each question's hash: what two models are paired by."""
    right: NDArray[np.bool_]
    clusters: Sequence[str]
    """Questions of the same cluster are not independent; an empty one stands for the question itself."""

    @property
    def accuracy(self) -> float:
        """Share of the questions answered rightly."""
        return float(self.right.mean())


@dataclass(frozen=True)
class ModelScores:
    """One model's scores under one way of asking; scores of different profiles or shots do not compare."""

    name: str
    profile: Profile
    shots: int
    dtype: str
    tasks: Mapping[str, TaskScores]
    """By the task's name; a task that failed or was not asked is missing."""
