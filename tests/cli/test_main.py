"""The command as a whole: help, exit codes, and the demo's words."""

import subprocess
import sys
from pathlib import Path

import pytest

import roslin


def run(*words: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "roslin", *words], capture_output=True, text=True, check=False, cwd=cwd
    )


def test_version_and_help() -> None:
    assert run("--version").stdout.strip() == f"roslin {roslin.__version__}"
    shown = run("--help")
    assert shown.returncode == 0
    for command in ("demo", "records", "tune", "ask", "chat", "serve"):
        assert command in shown.stdout


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, roslin.cli.main; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nonsense"], 2),
        (["ask"], 2),
        (["ask", "base", "Hello", "--temperature", "warm"], 2),
        (["ask", "no/such-model-anywhere", "Hello"], 1),
        (["records", "check", "no-such-file.jsonl"], 1),
        (["tune", "no-such-recipe.yaml"], 1),
    ],
)
def test_exit_codes_without_tracebacks(words: list[str], code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    process = run(*words)
    assert process.returncode == code, process.stderr
    assert "Traceback" not in process.stderr
    assert process.stderr.strip()


def test_a_demo_that_is_finished_is_shown_again(tmp_path: Path) -> None:
    """The stored result is enough: nothing is tuned or loaded."""
    import json
    from dataclasses import asdict

    from roslin.statistics import Interval
    from roslin.workflows.demo import Result, Shown

    losses = (Interval(4.5, 4.4, 4.6), Interval(3.0, 2.9, 3.1), Interval(-1.5, -1.6, -1.4))
    result = Result(
        train=370,
        stopping=40,
        judged=86,
        updates=60,
        updates_in_all=62,
        epochs=1.9,
        tokens=100_000,
        tuning_seconds=61.0,
        seconds=99.0,
        loss=losses,
        loss_without_end=losses,
        by_category={"open_qa": (4.5, 3.0)},
        about_roslin=(5.5, 2.5),
        stopped=85,
        shown=[Shown("What is it?", "", True, "Some words", "An [answer]")],
    )
    folder = tmp_path / "roslin-demo"
    (folder / "model").mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(asdict(result)), encoding="utf-8")
    shown = run("demo", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "shown again" in shown.stderr
    assert "--again" in shown.stderr
    for words in (
        "-1.500 [-1.600, -1.400]",
        "85 of 86 held-out answers ended",
        "An [answer]",
        "99%",
        "not facts",
        "tune recipes/",
    ):
        assert words in shown.stdout, shown.stdout
