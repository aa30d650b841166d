"""Runs with made-up answers, for tests of what is computed from them."""

from collections.abc import Mapping, Sequence

import numpy as np

from roslin.evaluate.published import COLUMNS
from roslin.evaluate.scores import ModelScores, Profile, TaskScores
from roslin.evaluate.tasks import TASKS


def task_scores(
    task: str, right: Sequence[int], *, keys: Sequence[str] | None = None, clusters: Sequence[str] | None = None
) -> TaskScores:
    """A task's answers; questions are called by their place where they are not named."""
    names = keys or [f"{task}-{place}" for place in range(len(right))]
    return TaskScores(task, TASKS[task].metric, names, np.array(right, dtype=np.bool_), clusters or [""] * len(right))


def run_of(
    tasks: Mapping[str, TaskScores],
    name: str = "mine",
    *,
    profile: Profile = "raw",
    shots: int = 0,
    dtype: str = "float32",
) -> ModelScores:
    """A run of these tasks."""
    return ModelScores(name, profile, shots, dtype, tasks)


def drawn_run(
    name: str = "mine",
    *,
    seed: int = 0,
    accuracy: float = 0.6,
    questions: int | None = None,
    tasks: Sequence[str] = COLUMNS,
    profile: Profile = "raw",
    shots: int = 0,
    dtype: str = "float32",
) -> ModelScores:
    """A run that answers alike in all tasks; runs of other seeds have most answers in common."""
    found = {}
    for number, task in enumerate(tasks):
        hardness = np.random.default_rng(number).random(questions or TASKS[task].size)
        own = np.random.default_rng([seed, number])
        anew = own.random(len(hardness)) < 0.2
        right = np.where(anew, own.random(len(hardness)), hardness) < accuracy
        clusters = [f"passage-{place * 9 // 10}" if task == "boolq" else "" for place in range(len(right))]
        found[task] = task_scores(task, right.tolist(), clusters=clusters)
    return run_of(found, name, profile=profile, shots=shots, dtype=dtype)
