"""`roslin eval MODEL`: the benchmarks asked, each score kept, and the model's line of the table."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from rich.console import Console
from rich.text import Text

from roslin.cli.ask import load
from roslin.cli.eval_card import fingerprint_of, require_card_of, say_written
from roslin.cli.screen import progress_console, result_console
from roslin.cli.table import USUAL_STORE
from roslin.errors import InputError, MachineError, RoslinError

if TYPE_CHECKING:
    from roslin.answer import Roslin
    from roslin.evaluate.benchmark import Evaluation, Progress
    from roslin.evaluate.contamination import TaskContamination
    from roslin.evaluate.scorer import Scorer
    from roslin.evaluate.scores import Profile
    from roslin.evaluate.store import Store
    from roslin.evaluate.tasks import Task
    from roslin.records import Record


@dataclass(frozen=True)
class BenchmarkOptions:
    """What the command was asked for."""

    tasks: Sequence[str]
    """Names; all seven where there are none."""
    data: Path | None
    profile: "Profile"
    shots: int
    limit: int | None
    transformers: bool
    """Whether transformers runs the model, instead of Roslin."""
    name: str | None
    dtype: str
    device: str
    revision: str | None
    store: Path
    trained_on: Sequence[str]
    as_json: bool
    card: bool
    """Whether to write the scores into the card of the model's folder."""


def eval_benchmarks(model: str, options: BenchmarkOptions) -> None:
    """Ask a model the benchmarks and print its scores; what the store has is not asked again.

    Raises UsageError for an unknown task, InputError or MachineError for a model that cannot be loaded, and at the end,
    after the scores of the others, for tasks that failed.
    """
    from roslin.evaluate.benchmark import evaluate
    from roslin.evaluate.store import Store
    from roslin.evaluate.tasks import TASKS, find_tasks
    from roslin.publish.card.benchmarks import SECTION

    tasks = find_tasks(options.tasks or list(TASKS))
    if options.card:
        require_card_of(model, SECTION)
    records = _training_records(options.trained_on)
    store = Store(options.store)
    with progress_console().status("loading") as status:
        scorer = load_scorer(model, options)

        def tell(progress: "Progress") -> None:
            kept = f" ({progress.kept:,} of them kept from before)" if progress.kept else ""
            status.update(f"{progress.task}: {progress.done:,} of {progress.total:,} questions{kept}")

        try:
            found = evaluate(
                scorer, tasks, store, data=options.data, shots=options.shots, limit=options.limit, on_progress=tell
            )
        except KeyboardInterrupt:
            print("Scores so far are kept: the same command goes on from here.", file=sys.stderr)
            raise
        overlaps = overlapping(records, found, tasks, options) if records else []
    if options.as_json:
        _print_json(found, overlaps)
    else:
        show(found, overlaps, result_console())
        _say_next(found, store.path)
    if options.card and found.scores.tasks:
        _record(model, found, overlaps, store)
    _raise_failures(found.failures, bool(found.scores.tasks))


def _record(model: str, found: "Evaluation", overlaps: "Sequence[Overlapping]", store: "Store") -> None:
    """Keep the scores beside the model, with its base's where the store has them, and put them into the card."""
    from roslin.publish.card import record_benchmarks
    from roslin.publish.evidence import BenchmarkEvidence, OverlapEvidence, read_evidence
    from roslin.workflows.card import base_scores

    folder = Path(model).expanduser()
    scores = found.scores
    evidence = BenchmarkEvidence.of(
        scores,
        fingerprint=fingerprint_of(model),
        base=base_scores(store, read_evidence(folder).tuning, scores.profile, scores.shots),
        contamination={
            each.task: OverlapEvidence(
                records=each.records,
                questions=each.contamination.questions + each.contamination.short_questions,
                touched=each.contamination.touched + each.contamination.short_touched,
                clean_accuracy=each.clean,
            )
            for each in overlaps
        },
        remarks=_remarks(found, ()),
    )
    say_written(record_benchmarks(folder, evidence))


def load_scorer(model: str, options: BenchmarkOptions) -> "Scorer":
    """The model, loaded, as one who can be asked."""
    name = options.name or model.rstrip("/")
    if options.transformers:
        return _load_by_transformers(model, name, options)
    from roslin.evaluate.scorer import RoslinScorer
    from roslin.model import find_model
    from roslin.model.fingerprint import fingerprint

    identity = fingerprint(find_model(model, options.revision))
    if options.profile == "instruct":
        loaded = load(model, options.dtype, options.device, "auto", options.revision)
    else:
        loaded = _load_for_no_prompt(model, options)
    return RoslinScorer(loaded, name=name, fingerprint=identity, profile=options.profile)


def _load_by_transformers(model: str, name: str, options: BenchmarkOptions) -> "Scorer":
    from roslin.evaluate.transformers_scorer import TransformersScorer
    from roslin.model.find import SHIPPED, find_model

    scorer = TransformersScorer.load(
        str(find_model(model)) if model == SHIPPED else model,
        revision=options.revision,
        dtype=options.dtype,
        device=options.device,
        profile=options.profile,
    )
    scorer.name = options.name or f"{name} (transformers)"
    return scorer


def _load_for_no_prompt(model: str, options: BenchmarkOptions) -> "Roslin":
    """The model; that it was tuned for no prompt is no matter where none is used."""
    import warnings

    from roslin.answer import Roslin

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return Roslin.load(model, dtype=options.dtype, device=options.device, revision=options.revision)


def show(found: "Evaluation", overlaps: "Sequence[Overlapping]", console: Console) -> None:
    """Print the model's line of the table, and what must be said of its figures."""
    from roslin.cli.table_text import show_table
    from roslin.evaluate.table import make_table

    scores = found.scores
    if scores.tasks:
        show_table(make_table([scores], profile=scores.profile, shots=scores.shots, published=False), console)
    for remark in _remarks(found, overlaps):
        console.print(Text(remark))


def _remarks(found: "Evaluation", overlaps: "Sequence[Overlapping]") -> list[str]:
    cut = "the beginnings of {:,} questions were cut off; the model has too few positions for them."
    return [
        *(f"{task}: {cut.format(count)}" for task, count in found.truncated.items()),
        *(f"{task}: {note}" for task, note in found.notes.items()),
        *map(str, overlaps),
    ]


@dataclass(frozen=True)
class Overlapping:
    """What training records hold of a task, and what the model scores on the rest of it."""

    task: str
    records: int
    contamination: "TaskContamination"
    clean: float | None
    """Accuracy on the questions that no record touches; None where there are none."""

    def __str__(self) -> str:
        """The finding in a sentence."""
        from roslin.evaluate.contamination import WORDS

        found = self.contamination
        touched, all_ = found.touched + found.short_touched, found.questions + found.short_questions
        said = (
            f"{self.task}: {touched:,} of {all_:,} questions share {WORDS} words in a row (or all of theirs, being "
            f"shorter) with the {self.records:,} training records"
        )
        if not touched or self.clean is None:
            return f"{said}."
        return f"{said}; on the others the accuracy is {self.clean:.6g}."


def overlapping(
    records: "Sequence[Record]", found: "Evaluation", tasks: "Sequence[Task]", options: BenchmarkOptions
) -> "list[Overlapping]":
    """The 13-word overlap of training records with every task that was scored."""
    from roslin.evaluate.contamination import contamination
    from roslin.evaluate.rows import load_questions

    scored = [task for task in tasks if task.name in found.scores.tasks]
    asked = {task.name: load_questions(task, options.data)[: options.limit] for task in scored}
    report = contamination(records, asked)
    overlaps = []
    for name, questions in asked.items():
        touched = report.tasks[name].touched_keys
        clean = [question.key not in touched for question in questions]
        right = found.scores.tasks[name].right[clean]
        accuracy = float(right.mean()) if len(right) else None
        overlaps.append(Overlapping(name, report.records, report.tasks[name], accuracy))
    return overlaps


def _training_records(paths: Sequence[str]) -> "list[Record]":
    if not paths:
        return []
    from roslin.records import load as load_records

    return load_records(paths)


def _print_json(found: "Evaluation", overlaps: "Sequence[Overlapping]") -> None:
    from roslin.evaluate.table import make_table
    from roslin.evaluate.table_json import table_object

    scores = found.scores
    table = make_table([scores] if scores.tasks else [], profile=scores.profile, shots=scores.shots, published=False)
    values: dict[str, Any] = {
        **table_object(table),
        "failures": {task: str(error) for task, error in found.failures.items()},
        "truncated": found.truncated,
        "notes": found.notes,
        "contamination": {each.task: _overlap_object(each) for each in overlaps} or None,
    }
    sys.stdout.buffer.write(orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_INDENT_2))
    sys.stdout.buffer.flush()


def _overlap_object(overlap: Overlapping) -> dict[str, Any]:
    found = overlap.contamination
    return {**found.as_object(), "records": overlap.records, "accuracy_on_the_others": overlap.clean}


def _say_next(found: "Evaluation", store: Path) -> None:
    if not found.scores.tasks:
        return
    profile, shots = found.scores.profile, found.scores.shots
    options = (f" --profile {profile}" if profile != "raw" else "") + (f" --shots {shots}" if shots else "")
    at = "" if store == Path(USUAL_STORE) else f" --store {store}"
    beside = "beside the published rows" if not options else "beside other runs of its kind"
    progress_console().print(f"Kept in {store}. `roslin table{options}{at}` sets it {beside}.", markup=False)


def _raise_failures(failures: Mapping[str, RoslinError], scored: bool) -> None:
    """Raise one error for all; a MachineError where no task failed by its input."""
    if not failures:
        return
    others = "the scores of the others are kept" if scored else "no task could be scored"
    reasons: dict[str, list[str]] = {}
    for task, error in failures.items():
        reasons.setdefault(str(error).removeprefix(f"{task}: "), []).append(task)
    told = "\n".join(f"{', '.join(tasks)}: {reason}" for reason, tasks in reasons.items())
    kind = InputError if any(isinstance(error, InputError) for error in failures.values()) else MachineError
    raise kind(f"{len(failures)} of the tasks failed; {others}.\n{told}")
