"""Triton compiles the kernels of tuning for the GPUs that they are for, which takes no GPU."""

from pathlib import Path

import pytest

from uninterpreted import lines_of

pytest.importorskip("triton")
SCRIPT = Path(__file__).parents[2] / "compiled_kernels.py"


@pytest.mark.full
def test_every_kernel_compiles_for_every_gpu() -> None:
    """In fp16 for those without bf16 too."""
    made = lines_of(SCRIPT)
    assert {"step fp16 sm_70", "step fp16 sm_75", "norms_backward fp16 sm_75", "backward_keys bf16 sm_90"} <= set(made)
    assert len(made) == 2 * 11 + 4 * 14  # fp16 on two GPUs that leave attention to torch, and both on two later ones
