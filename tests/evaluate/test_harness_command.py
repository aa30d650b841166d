"""The harness with the model `roslin` in it: its command, its tasks, and the model's arguments."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch
from lm_eval.api.registry import get_model
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from conftest import ROOT
from harness_models import ours, theirs
from roslin import prompt
from roslin.errors import InputError, UsageError
from roslin.evaluate.harness import TARGET, register
from roslin.evaluate.harness_model import RoslinLM


def test_arguments_that_are_wrong_are_told() -> None:
    with pytest.raises(UsageError, match="does not have: peft, parallelize"):
        RoslinLM("base", peft="x", parallelize=True)
    with pytest.raises(InputError, match="max_length is 99999; the model has 2048"):
        RoslinLM("base", max_length=99999)
    for name in ("max_length", "max_gen_toks", "max_batch_size"):
        with pytest.raises(UsageError, match=f"{name} is '1.5'; it must be a number from 1 on"):
            RoslinLM("base", **{"batch_size": 8, name: "1.5"})
    with pytest.raises(UsageError, match="batch_size is 'many'"):
        RoslinLM("base", batch_size="many")


def test_the_device_that_the_harness_passes_by_default_is_the_cpu_where_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    made = get_registered().create_from_arg_string(
        "pretrained=base,dtype=float32", {"device": "cuda:0", "batch_size": 1}
    )
    assert made.device.type == "cpu"
    assert made.get_model_info()["model_dtype"] == "torch.float32"


def get_registered() -> Any:
    register()
    register()
    return get_model("roslin")


def test_registered_it_is_known_beside_the_harnesss_own() -> None:
    assert get_registered() is RoslinLM
    assert get_model("hf") is HFLM


def test_the_entry_point_for_later_versions_is_the_model_class() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["lm_eval.models"] == {"roslin": TARGET}
    assert EntryPoint("roslin", TARGET, "lm_eval.models").load() is RoslinLM


def test_without_the_harness_the_command_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "lm_eval.py").write_text("raise ModuleNotFoundError(name='lm_eval')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from roslin.evaluate.harness import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "roslin: lm_eval is not installed here: pip install 'roslin[harness]'.\n",
    )


ROWS = [
    {"question": f"What is the colour of {thing}?", "right": right, "wrong": wrong, "label": n % 2}
    for n, (thing, right, wrong) in enumerate(
        [
            ("grass", "green", "purple"),
            ("the sky", "blue", "brown"),
            ("snow", "white", "black"),
            ("coal", "black", "pink"),
        ]
    )
]
TASKS = {
    "colours": {
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "{{[right, wrong] if label == 0 else [wrong, right]}}",
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "colours_written": {
        "output_type": "generate_until",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{right}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 12},
        "metric_list": [{"metric": "exact_match"}],
    },
    "colours_read": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}} {{right}}",
        "metric_list": [{"metric": "bits_per_byte"}, {"metric": "word_perplexity"}],
    },
}


@pytest.fixture(scope="module")
def task_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Small tasks of the harness over a file at hand."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for name, task in TASKS.items():
        data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}}}
        values = {"task": name, "test_split": "test", **data, **task}
        (folder / f"{name}.yaml").write_text(json.dumps(values))  # JSON is YAML
    return folder


def evaluated(lm: Any, task_folder: Path, **options: Any) -> dict[str, Any]:
    manager = TaskManager(include_path=str(task_folder), include_defaults=False)
    found = lm_eval.simple_evaluate(lm, tasks=list(TASKS), task_manager=manager, bootstrap_iters=0, **options)
    return {"results": found["results"], "samples": found["samples"]}


def test_tasks_end_as_they_do_with_hflm(base_folder: Path, task_folder: Path) -> None:
    found, expected = (evaluated(lm, task_folder) for lm in (ours("base"), theirs(base_folder)))
    for task, metrics in expected["results"].items():
        numbers = {name: value for name, value in metrics.items() if isinstance(value, float)}
        assert numbers
        assert {name: found["results"][task][name] for name in numbers} == pytest.approx(numbers, rel=1e-5)
    written = [sample["filtered_resps"] for sample in expected["samples"]["colours_written"]]
    assert [sample["filtered_resps"] for sample in found["samples"]["colours_written"]] == written


@pytest.mark.full
def test_a_task_that_does_not_exist_is_told_without_a_traceback() -> None:
    command = [sys.executable, "-m", "roslin", "harness", "--model_args", "pretrained=base", "--tasks", "nosuchtask"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Tasks not found: nosuchtask. `roslin harness ls tasks` lists" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.full
def test_the_command_runs_a_task_by_model_args(task_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "roslin.evaluate.harness", "--model", "roslin"]
    command += ["--model_args", "pretrained=base,dtype=float32", "--tasks", str(task_folder / "colours.yaml")]
    command += ["--apply_chat_template", "--output_path", str(tmp_path)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "roslin ({'pretrained': 'base', 'dtype': 'float32'})" in done.stdout
    assert "|colours|" in done.stdout
    [written] = tmp_path.rglob("results_*.json")
    assert json.loads(written.read_text())["chat_template"] == prompt.render_prompt("{instruction}")
