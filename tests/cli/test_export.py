"""`roslin export` as people and scripts run it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from roslin.answer import Roslin
from roslin.cli.main import main


def roslin(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "roslin", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.filterwarnings("ignore:This model.s tokenizer has neither")
def test_the_base_as_gguf_answers_like_the_base(tmp_path: Path) -> None:
    done = roslin("export", "base", str(tmp_path / "out"), "--format", "gguf", "--quantize", "q8_0")
    assert done.returncode == 0, done.stderr
    assert "parity: logits of" in done.stdout and "mean error" in done.stdout
    assert "Comparing it with its source" in done.stderr
    models = [Roslin.load(model) for model in ("base", str(tmp_path / "out"))]
    before, after = (model.answer("Where is Paris?", max_new_tokens=12, greedy=True).text for model in models)
    assert before == after != ""


@pytest.mark.full
def test_json_has_the_error_and_the_tolerance(tmp_path: Path) -> None:
    done = roslin("export", "base", str(tmp_path / "out"), "--dtype", "float16", "--trim-vocab", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["folder"] == str(tmp_path / "out")
    assert 0 < told["parity"]["mean_error"] < told["parity"]["tolerance"]["mean"] * told["parity"]["spread"]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "float16"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["./nothing-here"], 1),
        (["base", "--format", "hf", "--quantize", "q4_0"], 2),
        (["base", "--format", "merged"], 1),
    ],
)
def test_errors_have_their_exit_codes(
    words: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["roslin", "export", words[0], str(tmp_path / "out"), *words[1:]])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert capsys.readouterr().err.startswith("roslin: ")
    assert list(tmp_path.iterdir()) == []
