"""`roslin export` as people and scripts run it."""

import json
import os
import subprocess
import sys
from pathlib import Path


def roslin(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "roslin", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_the_base_as_gguf_answers_like_the_base(tmp_path: Path) -> None:
    done = roslin("export", "base", str(tmp_path / "out"), "--format", "gguf", "--quantize", "q8_0")
    assert done.returncode == 0, done.stderr
    assert "parity: logits of" in done.stdout and "mean error" in done.stdout
    assert "Comparing it with its source" in done.stderr
    words = ("--max-new-tokens", "12", "--greedy")
    asked = [roslin("ask", model, "Where is Paris?", *words) for model in ("base", str(tmp_path / "out"))]
    assert [answer.returncode for answer in asked] == [0, 0], asked[1].stderr
    assert asked[0].stdout == asked[1].stdout != ""


def test_json_has_the_error_and_the_tolerance(tmp_path: Path) -> None:
    done = roslin("export", "base", str(tmp_path / "out"), "--dtype", "float16", "--trim-vocab", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["folder"] == str(tmp_path / "out")
    assert 0 < told["parity"]["mean_error"] < told["parity"]["tolerance"]["mean"] * told["parity"]["spread"]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "float16"


def test_errors_have_their_exit_codes(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    missing = roslin("export", "no/such/model-here", out)
    wrong = roslin("export", "base", out, "--format", "hf", "--quantize", "q4_0")
    whole = roslin("export", "base", out, "--format", "merged")
    assert (missing.returncode, wrong.returncode, whole.returncode) == (1, 2, 1)
    assert all("Traceback" not in done.stderr for done in (missing, wrong, whole))
    assert list(tmp_path.iterdir()) == []
