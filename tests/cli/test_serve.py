"""`roslin serve` as it is typed: what it says, how it ends, and its exit codes."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
import typer
from typer.testing import CliRunner, Result

from roslin.cli.serve import serve
from roslin.errors import InputError, MachineError, UsageError
from roslin.tokens import Tokenizer
from tiny import tiny_gpt_neox

app = typer.Typer()
app.command()(serve)


def run(arguments: Sequence[str]) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("served") / "my-model"
    tiny_gpt_neox(folder, vocab_size=8200)
    tokenizer = Tokenizer.load(base_folder)
    tokenizer.add_keys()
    tokenizer.save(folder)
    return folder


def test_serves_until_ctrl_c(model: Path) -> None:
    command = [sys.executable, "-m", "roslin", "serve", str(model), "--port", "0", "--dtype", "float32"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert process.stdout
        line = process.stderr.readline()
        found = re.match(r"my-model answers at (http://127\.0\.0\.1:\d+/)", line)
        assert found, line + process.stderr.read()
        where = found[1]
        assert httpx.get(f"{where}health").json()["model"] == "my-model"
        assert httpx.get(f"{where}health", headers={"Host": "evil.example"}).status_code == 403
        body = {"prompt": "What is a sheep?", "max_tokens": 400, "stream": True}
        with httpx.stream("POST", f"{where}v1/completions", json=body) as reply:
            lines = reply.iter_lines()
            next(lines)
            process.send_signal(signal.SIGINT)
            list(lines)
        assert process.wait(timeout=60) == 130
        held, stopped = process.stderr.read().strip().splitlines()
        assert re.match(r"Answers have memory for [\d,]+ tokens, or [\d,]+ full-length requests of \d+", held)
        assert stopped == "Stopped."
        assert process.stdout.read() == ""


def test_a_port_in_use_is_the_machines_fault(model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = run([str(model), "--port", str(port)]).exception
    assert isinstance(error, MachineError)
    assert f"Port {port} on 127.0.0.1 is in use" in str(error)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_a_host_that_is_not_this_machine_is_wrong_usage(model: Path, host: str) -> None:
    error = run([str(model), "--port", "0", "--host", host]).exception
    assert isinstance(error, UsageError)
    assert host in str(error)


def test_a_model_that_is_not_there_is_bad_input() -> None:
    error = run(["no-such-folder", "--port", "0"]).exception
    assert isinstance(error, InputError)
    assert "no-such-folder" in str(error)


@pytest.mark.parametrize("key", ["", " ", "two words", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_wrong_usage(model: Path, key: str) -> None:
    error = run([str(model), "--port", "0", "--api-key", key]).exception
    assert isinstance(error, UsageError)
    assert "API key" in str(error)


@pytest.mark.parametrize("option", [["--port", "70000"], ["--max-batch", "0"]])
def test_numbers_out_of_range_are_wrong_usage(model: Path, option: list[str]) -> None:
    result = run([str(model), *option])
    assert result.exit_code == 2
    assert option[0] in result.output


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn"])
def test_without_the_extra_it_says_what_to_install(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from roslin.cli.main import main; main()"
    command = [sys.executable, "-c", code, "serve", "base"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == f"roslin: `roslin serve` needs {missing}: pip install 'roslin[serve]'"
