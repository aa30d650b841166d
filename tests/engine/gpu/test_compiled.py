"""Triton compiles the kernels of answering for the GPUs that they are for, which takes no GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
SCRIPT = Path(__file__).parents[2] / "compiled_answers.py"


@pytest.mark.full
def test_every_launch_of_answering_compiles_for_every_gpu() -> None:
    """Those in fp8 and those that start early only for GPUs that have it."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    made = {(kernel, gpu): int(count) for kernel, count, gpu in map(str.split, done.stdout.splitlines())}
    kernels = {kernel for kernel, _ in made}
    assert {"attend_one", "attend_prefix", "begin", "draw", "keep", "normed_product", "to_fp8", "unpack"} <= kernels
    assert kernels - {kernel for kernel, gpu in made if gpu == "sm_80"} == {"to_fp8"}
    assert made["normed_product", "sm_80"] < made["normed_product", "sm_90"]
