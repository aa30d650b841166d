"""The command as a whole: help, exit codes, and the demo's words."""

import os
import signal
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


def test_a_narrow_encoding_and_closed_streams_end_in_no_traceback(tmp_path: Path) -> None:
    records = tmp_path / "a.jsonl"
    records.write_text('{"instruction": "Ä☃?", "response": "Ja ☃.", "category": "☃"}\n', encoding="utf-8")
    shown = subprocess.run(
        [sys.executable, "-m", "roslin", "records", "stats", str(records)],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert shown.returncode == 0, shown.stderr
    assert b"\\u2603" in shown.stdout
    command = f"{sys.executable} -m roslin ask base - <&-"
    asked = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert asked.returncode == 1, asked.stderr
    command = f"{sys.executable} -m roslin records check {records} >&-"
    unheard = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert unheard.returncode == 0, unheard.stderr
    assert "Traceback" not in asked.stderr + unheard.stderr


def test_a_demo_that_is_finished_is_shown_again(tmp_path: Path) -> None:
    """The stored result is enough: nothing is tuned or loaded."""
    import json
    from dataclasses import asdict

    from roslin.statistics import Interval
    from roslin.workflows.demo import Result, Shown, _fingerprint
    from roslin.workflows.demo_folder import claim

    losses = (Interval(4.5, 4.4, 4.6), Interval(3.0, 2.9, 3.1), Interval(-1.5, -1.6, -1.4))
    result = Result(
        parameters=31_400_000,
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
        by_category={"[bold]open[/bold]": (4.5, 3.0)},
        about_roslin=(5.5, 2.5),
        reworded=40,
        recalled=17,
        stopped=85,
        shown=[Shown("What is it?", "", True, "Some words", "An [answer]")],
    )
    folder = tmp_path / "roslin-demo"
    folder.mkdir()
    claim(folder, _fingerprint())
    (folder / "model").mkdir()
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
        "31 million parameters",
        "Of 40 questions whose answers tuning was taught under other questions, 17 are answered word for word",
        "[bold]open[/bold]",
        "recipes/dolly-v2-3b.yaml",
    ):
        assert words in shown.stdout, shown.stdout


@pytest.mark.full
def test_the_demo_refuses_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.json").write_text("{}", encoding="utf-8")
    for folder in ("mine", "mine/notes.json", "mine/notes.json/below"):
        refused = run("demo", "--folder", folder, "--again", cwd=tmp_path)
        assert refused.returncode == 1, refused.stderr
        assert "Traceback" not in refused.stderr
        assert folder in refused.stderr
    assert (tmp_path / "mine" / "notes.json").read_text(encoding="utf-8") == "{}"


def interrupted(*words: str) -> tuple[int, bytes]:
    """Exit code and stderr of a command that gets Ctrl-C once it has begun to write to stdout."""
    process = subprocess.Popen([sys.executable, "-m", "roslin", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    return process.returncode, told


def test_ctrl_c_ends_an_answer_with_one_line() -> None:
    code, told = interrupted("ask", "base", "Tell me a long story.", "--max-new-tokens", "1900")
    assert code == 130
    assert told.decode().splitlines()[-1] == "Stopped."
    assert "Traceback" not in told.decode()


def test_ctrl_c_ends_a_check_with_one_line(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text('{"instruction": "a", "response": "b"}\n', encoding="utf-8")
    code = (
        "import os, signal, sys; from roslin import records; from roslin.cli import main; "
        "records.check = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT); "
        f"sys.argv = ['roslin', 'records', 'check', {str(path)!r}]; main.main()"
    )
    stopped = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert stopped.returncode == 130, stopped.stderr
    assert stopped.stderr.strip().splitlines()[-1] == "Stopped."
    assert "Traceback" not in stopped.stderr


@pytest.mark.parametrize("words", [["ask", "base", "Tell me a long story.", "--max-new-tokens", "60"], ["table"]])
def test_a_reader_that_leaves_ends_the_command_quietly(words: list[str]) -> None:
    process = subprocess.Popen([sys.executable, "-m", "roslin", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    told = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(60) == 141
    assert "Traceback" not in told and "BrokenPipe" not in told
