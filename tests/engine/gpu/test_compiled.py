"""Triton compiles the kernels of answering for the GPUs that they are for, which takes no GPU."""

from pathlib import Path

import pytest

from uninterpreted import lines_of

pytest.importorskip("triton")
SCRIPT = Path(__file__).parents[2] / "compiled_answers.py"


@pytest.mark.full
def test_every_launch_of_answering_compiles_for_every_gpu() -> None:
    """Those in fp8 and those that start early only for GPUs that have it."""
    made = {(kernel, gpu): int(count) for kernel, count, gpu in map(str.split, lines_of(SCRIPT))}
    kernels = {kernel for kernel, _ in made}
    assert {"attend_one", "attend_prefix", "begin", "draw", "keep", "normed_product", "to_fp8", "unpack"} <= kernels
    assert kernels - {kernel for kernel, gpu in made if gpu == "sm_80"} == {"to_fp8"}
    assert made["normed_product", "sm_80"] < made["normed_product", "sm_90"]
