"""`roslin eval` as people and scripts run it, benchmarks first."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness_tasks import write_jsonl
from in_process import Run, command_in
from roslin.cli.eval_benchmarks import Overlapping
from roslin.errors import MachineError
from roslin.evaluate import responses
from roslin.evaluate.contamination import TaskContamination
from roslin.evaluate.store import Store
from roslin.tokens import Tokenizer
from tiny import tiny_gpt_neox


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Path:
    """A tiny random model whose tokenizer has Dolly's keys, with a card."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer.load(base_folder)
    tokenizer.add_keys()
    tiny_gpt_neox(folder, vocab_size=tokenizer.size)
    tokenizer.save(folder)
    (folder / "README.md").write_text("# A model\n\n## Attribution\n\nNobody.\n")
    return folder


def piqa(number: int) -> dict[str, Any]:
    goal = f"Water plant number {number} on the sill by the window every morning before noon"
    return {"goal": goal, "sol1": f"take can {number}.", "sol2": "take it.", "label": 0}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    write_jsonl(folder / "piqa_validation.jsonl", [piqa(number) for number in range(12)])
    boolq = {"question": "is it so", "passage": "A passage.", "answer": True}
    write_jsonl(folder / "boolq_validation.jsonl", [boolq])
    return folder


@pytest.fixture
def roslin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The command in this process and a folder of its own."""
    return command_in(tmp_path, monkeypatch, capsys)


def asked(*more: str | Path, data: Path, tasks: str = "piqa,boolq") -> Sequence[str | Path]:
    return ("--data", data, "--tasks", tasks, *more)


def test_the_model_s_line_is_printed_and_kept(roslin: Run, model: Path, data: Path) -> None:
    done = roslin("eval", model, *asked(data=data), "--name", "mine")
    assert done.code == 0, done.err
    line = next(line for line in done.out.splitlines() if line.startswith("mine"))
    assert line.count(".") >= 2
    assert "boolq: its passages lack the titles" in done.out
    assert "`roslin table`" in done.err
    table = roslin("table", "--format", "json", "--no-published")
    [row] = json.loads(table.out)["rows"]
    assert (row["label"], row["tasks"]["piqa"]["questions"]) == ("mine", 12)


def test_nothing_is_asked_twice(roslin: Run, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = roslin("eval", model, *asked(data=data), "--json")

    def never(*_: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr("roslin.engine.scoring._Pass", never)
    again = roslin("eval", model, *asked(data=data), "--json")
    assert json.loads(again.out) == json.loads(first.out)


def test_json_holds_scores_notes_and_failures(roslin: Run, model: Path, data: Path) -> None:
    done = roslin("eval", model, *asked("--json", data=data, tasks="piqa,arc_easy"), "--limit", "5")
    assert done.code == 1
    values = json.loads(done.out)
    [row] = values["rows"]
    assert row["tasks"]["piqa"]["questions"] == 5
    assert "arc_easy_test.jsonl" in values["failures"]["arc_easy"]
    assert "the scores of the others are kept" in done.err


def test_profiles_are_kept_apart(roslin: Run, model: Path, data: Path) -> None:
    for profile in ("raw", "instruct"):
        assert roslin("eval", model, *asked("--profile", profile, data=data)).code == 0
    raw = json.loads(roslin("table", "--format", "json", "--no-published").out)
    other = json.loads(roslin("table", "--format", "json", "--profile", "instruct").out)
    assert (len(raw["rows"]), len(other["rows"])) == (1, 1)
    assert raw["left_out"] == [{"profile": "instruct", "shots": 0, "runs": 1}]


def test_transformers_runs_the_model_with_hf(roslin: Run, model: Path, data: Path) -> None:
    mine = json.loads(roslin("eval", model, *asked("--json", data=data)).out)["rows"][0]
    theirs = json.loads(roslin("eval", model, *asked("--json", "--hf", data=data)).out)["rows"][0]
    assert theirs["label"] == f"{model} (transformers)"
    right = [[row["tasks"][task]["right"] for task in ("piqa", "boolq")] for row in (mine, theirs)]
    assert right[0] == right[1]


def test_training_records_that_hold_questions_are_told(roslin: Run, model: Path, data: Path, tmp_path: Path) -> None:
    question = piqa(3)
    record = {"instruction": f"{question['goal']} {question['sol1']}", "context": "", "response": "Yes."}
    records = write_jsonl(tmp_path / "records.jsonl", [record])
    done = roslin("eval", model, *asked("--trained-on", records, data=data))
    told = " ".join(done.out.split())
    assert "piqa: 1 of 12 questions share 13 words in a row" in told
    assert "with the 1 training records; on the others the accuracy is" in told
    as_json = json.loads(roslin("eval", model, *asked("--trained-on", records, "--json", data=data)).out)
    assert as_json["contamination"]["piqa"]["touched"] == 1


def test_no_right_answer_on_the_others_is_told_too() -> None:
    found = TaskContamination(3, 1, 0, 0, frozenset("a"), ())
    assert str(Overlapping("piqa", 9, found, 0.0)).endswith("on the others the accuracy is 0.")
    assert "others" not in str(Overlapping("piqa", 9, found, None))


def test_scores_go_into_the_card(roslin: Run, model: Path, data: Path) -> None:
    assert roslin("eval", model, *asked("--card", data=data), "--name", "mine").code == 0
    card = (model / "README.md").read_text()
    assert card.index("## Benchmark Metrics") < card.index("## Attribution")
    assert "| databricks/dolly-v2-7b | 0.392 |" in card
    assert "| piqa | " in card
    assert "boolq: its passages lack the titles" in card
    assert roslin("eval", model, *asked("--card", data=data), "--name", "mine").code == 0
    assert (model / "README.md").read_text() == card


def test_a_card_that_is_not_there_is_told_before_any_work(roslin: Run, data: Path) -> None:
    done = roslin("eval", "base", *asked("--card", data=data))
    assert done.code == 1
    assert "README.md" in done.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--tasks", "piqa,mmlu"), "mmlu"),
        (("--limits", "--shots", "2"), "--shots"),
        (("--records", "x.jsonl", "--data", "y"), "--data"),
        (("--greedy",), "--greedy is for records"),
        (("--tasks", ","), "names no task"),
        (("--seed", "-1"), "--seed"),
        (("--seed", "99999999999999999999"), "--seed"),
        (("--profile", "chat"), "chat"),
    ],
)
def test_wrong_usage_is_told(roslin: Run, model: Path, words: Sequence[str], told: str) -> None:
    done = roslin("eval", model, *words)
    assert done.code == 2
    assert told in done.err


def test_one_fault_of_many_tasks_is_told_once(roslin: Run, model: Path, tmp_path: Path) -> None:
    done = roslin("eval", model, *asked(data=tmp_path / "none", tasks="piqa,boolq"))
    assert done.code == 1
    assert "2 of the tasks failed" in done.err
    assert done.err.count("no such folder") == 1
    assert "piqa, boolq: " in done.err


def test_a_model_that_is_not_there_is_told(roslin: Run, data: Path) -> None:
    done = roslin("eval", "no-such-model", *asked(data=data))
    assert done.code == 1
    assert "no-such-model" in done.err
    assert "Traceback" not in done.err


@pytest.mark.full
def test_ctrl_c_keeps_what_was_scored(model: Path, data: Path, tmp_path: Path) -> None:
    write_jsonl(data / "piqa_validation.jsonl", [piqa(number) for number in range(40_000)])
    command = [sys.executable, "-m", "roslin", "eval", str(model), *map(str, asked(data=data, tasks="piqa"))]
    running = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    store = tmp_path / "roslin-results.sqlite"
    deadline = time.monotonic() + 120
    while not (store.exists() and scored(store)) and time.monotonic() < deadline:
        time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130
    assert told.strip().endswith("Stopped.")
    assert 0 < scored(store) < 40_000


def scored(path: Path) -> int:
    return sum(len(scores.tasks["piqa"].keys) for scores in Store(path).scores())


RECORDS = [
    {"instruction": f"Name thing {number}.", "context": "", "response": f"Thing {number}.", "category": "open_qa"}
    for number in range(4)
]


def test_held_out_records_and_checked_instructions_of_two_models(roslin: Run, model: Path, tmp_path: Path) -> None:
    records = write_jsonl(tmp_path / "held-out.jsonl", RECORDS)
    prompts = write_jsonl(
        tmp_path / "prompts.jsonl",
        [{"key": 1, "prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}],
    )
    asked_for = ("--records", records, "--ifeval", prompts, "--against", "base", "--max-new-tokens", "6")
    shown = roslin("eval", model, *asked_for, "--samples", tmp_path / "samples.html")
    assert shown.code == 0, shown.err
    assert "4 held-out records, paired" in shown.out
    assert "note: This model's tokenizer has neither" in shown.err
    assert "Thing 3." in (tmp_path / "samples.html").read_text()
    values = json.loads(roslin("eval", model, *asked_for, "--json").out)
    assert values.keys() == {"model", "against", "change"}
    assert values["model"].keys() == {"name", "responses", "ifeval"}
    assert values["change"].keys() == {"responses", "ifeval"}


def test_bad_records_are_told_before_a_model_is_loaded(roslin: Run, tmp_path: Path) -> None:
    records = write_jsonl(tmp_path / "held-out.jsonl", [{"instruction": "Why?", "response": ""}])
    done = roslin("eval", "no-such-model", "--records", records)
    assert done.code == 1
    assert "held-out.jsonl:1" in done.err
    assert roslin("eval", "base", "--ifeval", "own", "--samples", tmp_path / "page.html").code == 2


def test_both_models_are_looked_for_before_one_is_judged(roslin: Run, tmp_path: Path) -> None:
    records = write_jsonl(tmp_path / "held-out.jsonl", RECORDS)
    done = roslin("eval", "no-such-model", "--records", records, "--against", "base")
    assert done.code == 1
    assert "no-such-model" in done.err
    assert "note:" not in done.err  # which base gives when it is loaded


@pytest.mark.parametrize("page", [".", "none/page.html"])
def test_a_page_that_cannot_be_is_told_before_any_work(roslin: Run, tmp_path: Path, page: str) -> None:
    records = write_jsonl(tmp_path / "held-out.jsonl", RECORDS)
    done = roslin("eval", "no-such-model", "--records", records, "--samples", tmp_path / page)
    assert done.code == 2
    assert "no file in a folder that is there" in done.err


@pytest.mark.parametrize("prompts", ["none.jsonl", "none/prompts.json", "", "none"])
def test_prompts_that_are_not_there_are_not_looked_for_on_the_hub(roslin: Run, prompts: str) -> None:
    done = roslin("eval", "no-such-model", "--ifeval", prompts)
    assert done.code == 1
    assert "no such file" in done.err


def test_a_part_that_fails_does_not_lose_the_others(
    roslin: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = write_jsonl(tmp_path / "held-out.jsonl", RECORDS)
    sound = responses.judge_responses

    def broken_for_one(judged: Any, found: Any, **how: Any) -> Any:
        if how["name"] == str(model):
            raise MachineError("The model's numbers stop being numbers.")
        return sound(judged, found, **how)

    monkeypatch.setattr("roslin.evaluate.responses.judge_responses", broken_for_one)
    words = ("--records", records, "--against", "base", "--max-new-tokens", "4")
    shown = roslin("eval", model, *words)
    assert shown.code == 3
    assert "base: 4 held-out records" in shown.out
    assert f"{model}, records: The model's numbers stop being numbers." in shown.err
    values = json.loads(roslin("eval", model, *words, "--json").out)
    assert "responses" in values["against"]
    assert values["model"]["failures"] == {"records": "The model's numbers stop being numbers."}
