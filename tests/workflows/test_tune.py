"""`roslin tune` from a recipe file to a folder that transformers loads, by the command itself."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from roslin.tokens import Tokenizer

RECIPE = """\
model: base
records: {records}
output: {output}
held_out: {{fraction: 0.2}}
epochs: 1
records_per_update: 8
learning_rate: 3e-4
warmup_updates: 3
max_length: 512
row_length: 512
evaluate_every: 5
sample_every: 10
samples: ["What is Roslin?"]
checkpoint_every: 5
"""


@pytest.fixture
def recipe_file(some_starter_records: Path, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(records=some_starter_records, output=tmp_path / "run"), encoding="utf-8")
    return path


def roslin(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "roslin", *words], capture_output=True, text=True, check=False)


def test_a_recipe_becomes_a_model_folder(recipe_file: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    process = subprocess.Popen(
        [sys.executable, "-m", "roslin", "tune", str(recipe_file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("update 2/"):
            process.send_signal(signal.SIGINT)
            break
    _, rest = process.communicate(timeout=120)
    assert process.returncode == 130, rest
    assert "The same command goes on" in rest

    done = roslin("tune", str(recipe_file))
    assert done.returncode == 0, done.stderr
    assert "goes on from update" in done.stderr
    assert "What is Roslin?" in done.stderr  # a sample
    folder = Path(done.stdout.strip())
    assert folder == tmp_path / "run" / "model"

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert GenerationConfig.from_pretrained(folder).eos_token_id == Tokenizer.load(folder).end_id
    assert tokenizer.convert_tokens_to_ids("### End") == Tokenizer.load(folder).end_id
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "license: cc-by-sa-4.0" in card
    assert "OpenStax" in card
    assert (folder / "NOTICE.md").is_file()

    again = roslin("tune", str(recipe_file))
    assert again.returncode == 1
    assert "already there" in again.stderr


def test_check_tunes_nothing(recipe_file: Path, tmp_path: Path) -> None:
    checked = roslin("tune", str(recipe_file), "--check")
    assert checked.returncode == 0, checked.stderr
    assert "are sound" in checked.stderr
    assert not (tmp_path / "run").exists()


def test_faults_are_told_without_a_traceback(recipe_file: Path, tmp_path: Path) -> None:
    wrong = roslin("tune", str(recipe_file), "epochs=none", "colour=red")
    assert wrong.returncode == 1
    assert "The recipe has 2 faults" in wrong.stderr
    missing = roslin("tune", str(tmp_path / "none.yaml"))
    assert missing.returncode == 1
    usage = roslin("tune")
    assert usage.returncode == 2
    for process in (wrong, missing, usage):
        assert "Traceback" not in process.stderr


def test_a_bad_record_is_told_with_file_and_line(recipe_file: Path, some_starter_records: Path) -> None:
    with some_starter_records.open("a", encoding="utf-8") as file:
        file.write('{"instruction": "x", "response": ""}\n')
    lines = len(some_starter_records.read_text(encoding="utf-8").splitlines())
    process = roslin("tune", str(recipe_file))
    assert process.returncode == 1
    assert f"{some_starter_records.name}:{lines}" in process.stderr
    assert "Traceback" not in process.stderr
