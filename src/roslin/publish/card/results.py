"""Benchmark results as the hub reads them: `model-index` in a card's metadata, and the files of `.eval_results`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml
from huggingface_hub import EvalResult

import roslin
from roslin.evaluate.tasks import TASKS

if TYPE_CHECKING:
    from roslin.publish.evidence import BenchmarkEvidence, Evidence

FOLDER = ".eval_results"
FILE = "roslin.yaml"
METRIC_NAMES = {"acc": "accuracy", "acc_norm": "accuracy, choices by log-likelihood a character"}


def eval_results(evidence: Evidence) -> list[EvalResult]:
    """What was measured by every question of a task: a part of them is no result of the benchmark."""
    return [_result(found, task) for found in evidence.benchmarks for task in found.own.whole]


def _result(found: BenchmarkEvidence, name: str) -> EvalResult:
    task, cell = TASKS[name], found.own.tasks[name]
    return EvalResult(
        task_type="text-generation",
        task_name=f"{name}, {_way(found)}",
        dataset_type=task.path,
        dataset_name=name,
        dataset_config=task.config,
        dataset_split=task.split,
        metric_type=cell.metric,
        metric_name=METRIC_NAMES[cell.metric],
        metric_value=round(cell.share.estimate, 6),
        metric_args={"shots": found.shots, "profile": found.profile, "right": cell.right, "questions": cell.asked},
    )


def _way(found: BenchmarkEvidence) -> str:
    return "zero-shot" if found.shots == 0 else f"{found.shots}-shot"


def eval_results_yaml(evidence: Evidence) -> str | None:
    """The same as a file of `.eval_results`; None where no benchmark was measured whole."""
    entries: list[dict[str, Any]] = []
    for found in evidence.benchmarks:
        for name in found.own.whole:
            task, cell = TASKS[name], found.own.tasks[name]
            notes = (
                f"{cell.metric}, {_way(found)}, profile {found.profile}, {found.own.dtype}: {cell.right} of "
                f"{cell.asked} right, 95 % interval {cell.share.low:.4f} to {cell.share.high:.4f}; Roslin "
                f"{roslin.__version__}"
            )
            dataset = {"id": task.path, "task_id": task.config or name}
            entries.append({"dataset": dataset, "value": round(cell.share.estimate, 6), "notes": notes})
    return yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=100) if entries else None
