"""The LM Evaluation Harness's own seven tasks over rows at hand: the oracle of ours. Nothing is downloaded."""

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lm_eval
import lm_eval.utils
from datasets import Dataset, DatasetDict
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from roslin.evaluate.question import Choice, Question

HARNESS_TASKS = Path(lm_eval.__file__).parent / "tasks"
FILES = {
    "openbookqa": "openbookqa/openbookqa.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "winogrande": "winogrande/default.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "piqa": "piqa/piqa.yaml",
    "boolq": "super_glue/boolq/default.yaml",
}
AT_HAND = {
    "openbookqa": "openbookqa_test",
    "arc_easy": "arc_easy_test",
    "winogrande": "winogrande_xl_validation",
    "arc_challenge": "arc_challenge_test",
    "piqa": "piqa_validation",
    "boolq": "boolq_validation",
}
"""The files of the shared data that hold what is asked."""

Rows = list[dict[str, Any]]


def read_jsonl(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def as_on_the_hub(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the flat layout in the hub's; any other unchanged."""
    if "gold" in row:
        labels = [chr(ord("A") + place) for place in range(len(row["choices"]))]
        kept = {key: value for key, value in row.items() if key not in ("choices", "gold")}
        return {**kept, "choices": {"text": row["choices"], "label": labels}, "answerKey": labels[row["gold"]]}
    if name == "boolq" and "answer" in row:
        return {"question": row["question"], "passage": row["passage"], "label": int(row["answer"])}
    return dict(row)


def harness_config(name: str) -> dict[str, Any]:
    """The task's own YAML, with its functions."""
    return load_yaml(HARNESS_TASKS / FILES[name])


def harness_task(name: str, rows: Rows, train: Rows | None = None) -> ConfigurableTask:
    """The harness's task over `rows` in the hub's layout; `train` are what examples are drawn from."""
    config = harness_config(name)
    asked = config.get("test_split") or config["validation_split"]
    splits = DatasetDict({"train": Dataset.from_list(train or rows[:1]), asked: Dataset.from_list(rows)})
    for key in ("dataset_path", "dataset_name", "tag"):
        config.pop(key, None)
    return ConfigurableTask(config={**config, "custom_dataset": lambda **_: splits})


def harness_questions(
    task: ConfigurableTask, *, shots: int = 0, seed: int = 1234, chat: Callable[..., str] | None = None
) -> list[Question]:
    """What the harness asks, as questions: its requests, the lengths it divides by, and its right answers."""
    task.set_config("num_fewshot", shots)
    task.set_fewshot_seed(seed)
    task.build_all_requests(apply_chat_template=chat is not None, chat_template=chat)
    requests: dict[int, list[Any]] = {}
    for request in task.instances:
        requests.setdefault(request.doc_id, []).append(request)
    return [_question(task, asked) for _, asked in sorted(requests.items())]


def _question(task: ConfigurableTask, requests: list[Any]) -> Question:
    doc = requests[0].doc
    gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    texts = task.doc_to_choice(doc)
    requests.sort(key=lambda request: request.idx)
    choices = (Choice(*request.args, len(text)) for request, text in zip(requests, texts, strict=True))
    return Question(tuple(choices), gold)


@contextmanager
def compiled_templates() -> Iterator[None]:
    """The harness compiles a template anew for each row, which takes most of its time; here each is compiled once."""
    compiled = functools.cache(lm_eval.utils.env.from_string)
    with patch.object(lm_eval.utils, "apply_template", lambda template, doc: compiled(template).render(**doc)):
        yield
