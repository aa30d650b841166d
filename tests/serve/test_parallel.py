"""A server whose model several processes hold: rank 0 answers, all end together."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.full

ADDRESS = re.compile(r"answers at (http://\S+)")
COMMAND = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "roslin", "serve"]


def address(server: "subprocess.Popen[str]") -> str:
    assert server.stderr is not None
    for line in server.stderr:
        if found := ADDRESS.search(line):
            return found[1]
    raise AssertionError("The server never said where it answers.")


@pytest.fixture
def server(base_folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*COMMAND, str(base_folder), "--port", "0", "--device", "cpu"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_answers_until_ctrl_c(server: "subprocess.Popen[str]") -> None:
    with httpx.Client(base_url=address(server), timeout=60) as client:
        body = {"model": "base", "prompt": "Name three birds.", "seed": 3, "max_tokens": 12}
        first, second = (client.post("v1/completions", json=body) for _ in range(2))
    assert first.status_code == 200, first.text
    assert first.json()["choices"][0]["text"] == second.json()["choices"][0]["text"]
    os.killpg(server.pid, signal.SIGINT)  # as a terminal does
    _, said = server.communicate(timeout=60)
    assert "Stopped." in said
    assert "has died" not in said


def test_a_lost_process_ends_an_idle_server(server: "subprocess.Popen[str]") -> None:
    address(server)
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text(encoding="ascii").split()
    workers = {rank_of(int(pid)): int(pid) for pid in children if rank_of(int(pid)) is not None}
    os.kill(workers[1], signal.SIGKILL)
    _, said = server.communicate(timeout=60)
    assert server.returncode != 0
    assert len(re.findall(r"^roslin: Rank 1 .* has died", said, re.MULTILINE)) == 1


def rank_of(pid: int) -> int | None:
    environment = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return next((int(entry.removeprefix("RANK=")) for entry in environment if entry.startswith("RANK=")), None)
