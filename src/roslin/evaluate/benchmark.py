"""Asking a model the benchmarks: task by task, each result kept at once, and a failing task not failing the others."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import roslin
from roslin.errors import InputError, MachineError
from roslin.evaluate.question import Question
from roslin.evaluate.rows import load_task
from roslin.evaluate.scorer import ChoiceScore, Scorer
from roslin.evaluate.scores import ModelScores, TaskScores
from roslin.evaluate.store import Identity, Run, Store
from roslin.evaluate.tasks import Task

KEEP_EVERY_S = 2.0
"""How much work a power cut may cost."""
DECIDING = (
    "prompt.py",
    "gguf_file.py",
    "tokens",
    "model",
    "engine",
    "answer/prompts.py",
    "evaluate/tasks.py",
    "evaluate/scorer.py",
    "evaluate/harness_pairs.py",
    "evaluate/harness_text.py",
    "evaluate/transformers_scorer.py",
)
"""The code that a log-likelihood depends on, in the package's folder; the questions have hashes of their own."""


@dataclass(frozen=True)
class Progress:
    """How far a task is, in questions."""

    task: str
    done: int
    total: int
    kept: int
    """Of those done, how many an earlier run had scored."""


@dataclass(frozen=True)
class Evaluation:
    """What came of asking a model: scores, and why tasks are missing from them."""

    scores: ModelScores
    failures: Mapping[str, InputError | MachineError] = field(default_factory=dict)
    """What went wrong, by task."""
    truncated: Mapping[str, int] = field(default_factory=dict)
    """Questions whose contexts were too long for the model, by task."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """What must be said of the data, by task."""


def evaluate(
    scorer: Scorer,
    tasks: Sequence[Task],
    store: Store,
    *,
    data: Path | None = None,
    shots: int = 0,
    limit: int | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Evaluation:
    """Ask `scorer` the questions of `tasks`, the first `limit` of each, and keep every score in `store`.

    `data` is a folder with the tasks' files; None is the hub. What the store has is not asked again. A task whose data
    or scoring fails (InputError, MachineError) is reported in the result, and the others are asked all the same.
    """
    version = f"{type(scorer).__name__} {code_version()}"
    run = store.run(Identity(scorer.fingerprint, scorer.profile, shots, scorer.dtype, version), scorer.name)
    scores: dict[str, TaskScores] = {}
    failures: dict[str, InputError | MachineError] = {}
    notes: dict[str, str] = {}
    for task in tasks:
        try:
            found = load_task(task, data, shots=shots)
            _ask(scorer, task.name, found.questions[:limit], run, on_progress)
            scores[task.name] = run.scores(task.name, task.metric)
            notes |= {task.name: found.note} if found.note else {}
        except (InputError, MachineError) as error:
            failures[task.name] = error
    return Evaluation(
        ModelScores(scorer.name, scorer.profile, shots, scorer.dtype, scores),
        failures,
        truncated={name: count for name in scores if (count := run.truncated(name))},
        notes=notes,
    )


def _ask(
    scorer: Scorer, task: str, questions: Sequence[Question], run: Run, on_progress: Callable[[Progress], None]
) -> None:
    missing = [questions[number] for number in run.ask(task, questions)]
    done = kept = len({question.key for question in questions}) - len(missing)
    on_progress(Progress(task, done, done + len(missing), kept))
    pending: list[tuple[Question, list[ChoiceScore]]] = []
    due = time.monotonic() + KEEP_EVERY_S
    try:
        for number, scores in scorer.score(missing):
            pending.append((missing[number], scores))
            done += 1
            if time.monotonic() >= due:
                run.add(task, pending)
                pending, due = [], time.monotonic() + KEEP_EVERY_S
                on_progress(Progress(task, done, kept + len(missing), kept))
    finally:
        run.add(task, pending)
    on_progress(Progress(task, done, done, kept))


@cache
def code_version() -> str:
    """Roslin's version, with a hash of the code that decides what a text's log-likelihood is."""
    package = Path(roslin.__file__).parent
    places = (package / name for name in DECIDING)
    sources = [path for place in places for path in (sorted(place.rglob("*.py")) if place.is_dir() else [place])]
    digest = hashlib.sha256()
    for path in sources:
        digest.update(path.read_bytes())
    return f"{roslin.__version__} {digest.hexdigest()[:16]}"
