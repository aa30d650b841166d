"""Asking benchmarks: each score kept at once, a run that goes on, and tasks that fail alone."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness_tasks import write_jsonl
from roslin.answer import Roslin
from roslin.errors import MachineError
from roslin.evaluate.benchmark import Evaluation, Progress, code_version, evaluate
from roslin.evaluate.question import Question
from roslin.evaluate.scorer import ChoiceScore, RoslinScorer
from roslin.evaluate.scores import Profile
from roslin.evaluate.store import Store
from roslin.evaluate.tasks import find_tasks
from tiny import tiny_gpt_neox

pytestmark = pytest.mark.filterwarnings("ignore:This model's tokenizer has neither")


class Lengths:
    """A scorer that finds short continuations likelier, and may break off."""

    name, dtype, fingerprint = "lengths", "float32", "lengths-1"
    profile: Profile = "raw"

    def __init__(self, breaks_after: int | None = None, error: BaseException | None = None) -> None:
        self.asked: list[str] = []
        self._left = breaks_after
        self._error = error or KeyboardInterrupt()

    def score(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[ChoiceScore]]]:
        for number in reversed(range(len(questions))):
            if self._left == len(self.asked):
                raise self._error
            self.asked.append(questions[number].choices[0].context)
            yield number, [ChoiceScore(-float(len(c.continuation)), 1) for c in questions[number].choices]


def piqa(number: int, label: int = 0) -> dict[str, Any]:
    return {"goal": f"goal {number}", "sol1": "short", "sol2": "longer", "label": label}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    write_jsonl(folder / "piqa_validation.jsonl", [piqa(number, label=number % 4 // 3) for number in range(8)])
    sentence = {"sentence": "A _ is here.", "option1": "cat", "option2": "dog", "answer": "2"}
    write_jsonl(folder / "winogrande_validation.jsonl", [sentence])
    return folder


def asked(scorer: Any, names: Sequence[str], data: Path, **how: Any) -> Evaluation:
    return evaluate(scorer, find_tasks(names), Store(data.parent / "results.sqlite"), data=data, **how)


def test_tasks_are_scored_by_their_own_metrics(data: Path) -> None:
    found = asked(Lengths(), ["piqa", "winogrande"], data)
    assert found.scores.tasks["piqa"].metric == "acc_norm"
    assert found.scores.tasks["winogrande"].metric == "acc"
    # By acc_norm " short" is worth 6/5, " longer" 7/6: the longer wins where acc would pick the shorter.
    assert found.scores.tasks["piqa"].accuracy == 2 / 8
    assert found.failures == {}


def test_what_was_scored_when_it_was_stopped_is_not_asked_again(data: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        asked(Lengths(breaks_after=5), ["piqa"], data)
    again = Lengths()
    seen: list[Progress] = []
    found = asked(again, ["piqa"], data, on_progress=seen.append)
    assert len(again.asked) == 3
    assert seen[0] == Progress("piqa", done=5, total=8, kept=5)
    assert seen[-1] == Progress("piqa", done=8, total=8, kept=5)
    assert len(found.scores.tasks["piqa"].keys) == 8


def test_what_was_scored_in_time_is_on_the_disk(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at the end alone: a power cut has no `finally`."""
    monkeypatch.setattr("roslin.evaluate.benchmark.KEEP_EVERY_S", 0.0)
    store = Store(data.parent / "results.sqlite")
    counts: list[int] = []

    class Looking(Lengths):
        def score(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[ChoiceScore]]]:
            for found in super().score(questions):
                yield found
                counts.extend(len(scores.tasks["piqa"].keys) for scores in Store(store.path).scores())

    asked(Looking(), ["piqa"], data)
    assert counts == list(range(1, 9))


def test_a_task_that_fails_does_not_lose_the_others(data: Path) -> None:
    write_jsonl(data / "openbookqa_test.jsonl", [{"question_stem": "Why?", "answers": ["a", "b"]}])
    found = asked(Lengths(), ["openbookqa", "arc_easy", "winogrande"], data)
    assert list(found.scores.tasks) == ["winogrande"]
    assert "openbookqa_test.jsonl:1" in str(found.failures["openbookqa"])
    assert "arc_easy_test.jsonl" in str(found.failures["arc_easy"])


def test_a_model_whose_numbers_are_none_is_told_for_each_task(base_folder: Path, data: Path) -> None:
    tiny_gpt_neox(data.parent / "model", tokenizer=base_folder, vocab_size=8192)
    [weights] = (data.parent / "model").glob("*.safetensors")
    tensors = load_file(weights)
    [head] = [tensor for name, tensor in tensors.items() if name in ("embed_out.weight", "lm_head.weight")]
    head.fill_(torch.nan)
    save_file(tensors, weights, {"format": "pt"})
    model = Roslin.load(str(data.parent / "model"), dtype="float32")
    scorer = RoslinScorer(model, name="broken", fingerprint="broken")
    found = asked(scorer, ["piqa", "winogrande"], data)
    assert found.scores.tasks == {}
    assert {type(error) for error in found.failures.values()} == {MachineError}
    assert "in the logits" in str(found.failures["piqa"])


def test_the_first_questions_alone(data: Path) -> None:
    scorer = Lengths()
    found = asked(scorer, ["piqa"], data, limit=3)
    assert len(scorer.asked) == len(found.scores.tasks["piqa"].keys) == 3
    more = Lengths()
    asked(more, ["piqa"], data)
    assert len(more.asked) == 5


def test_shots_are_other_questions(data: Path) -> None:
    write_jsonl(data / "piqa_train.jsonl", [piqa(number) for number in range(100, 120)])
    asked(Lengths(), ["piqa"], data)
    shown = Lengths()
    found = asked(shown, ["piqa"], data, shots=2)
    assert found.scores.shots == 2
    assert len(shown.asked) == 8
    assert all(context.count("Question: goal 1") >= 2 for context in shown.asked)


def test_the_code_has_a_version_of_its_own() -> None:
    version, digest = code_version().split()
    assert version[0].isdigit()
    assert len(digest) == 16
