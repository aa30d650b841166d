"""Runs that torchrun starts, and how their curves compare."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BEFALLEN = Path(__file__).with_name("befallen_run.py")
LIMIT = 240
"""Seconds that a run may take on a busy machine; one that hangs takes longer."""

Launch = Callable[..., "subprocess.CompletedProcess[str]"]


def on_two_machines(*words: str, port: int, is_host: bool) -> "subprocess.Popen[str]":
    """Start torchrun as one of two machines of one process each, on this one."""
    meeting = f"--rdzv-endpoint=localhost:{port}", f"--rdzv-conf=is_host={int(is_host)}"
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--max-restarts=2"]
    return subprocess.Popen(
        [*command, "--rdzv-backend=c10d", "--rdzv-id=two", *meeting, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
    )


def torchrun(*words: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run torchrun on this machine alone, each process on one thread."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=environment, cwd=cwd, check=False)


def curve(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def assert_same_curve(output: Path, other: Path) -> None:
    """Of two runs in fp32: every loss to 1e-5, and what was counted exactly."""
    ours, theirs = curve(output), curve(other)
    assert [(line["kind"], line["update"]) for line in ours] == [(line["kind"], line["update"]) for line in theirs]
    for line, its in zip(ours, theirs, strict=True):
        assert line["held_out"] == pytest.approx(its["held_out"], abs=1e-5)
        if line["kind"] == "update":
            assert line["loss"] == pytest.approx(its["loss"], abs=1e-5)
            assert line["grad_norm"] == pytest.approx(its["grad_norm"], rel=1e-4)
            assert all(line[name] == its[name] for name in ("tokens", "records", "learning_rate"))
