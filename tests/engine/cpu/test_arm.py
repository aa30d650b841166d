"""The kernels on Arm: compiled for Linux and macOS, and run by an emulator through the tests of this folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cross_compiled import CPP, ROOT, kernels_for_the_emulator, objects
from other_versions import environment

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(sys.platform != "linux", reason="the emulator finds memory as Linux lists it"),
]

TARGETS = ["aarch64-linux-gnu.2.28", "aarch64-macos.11.0", "x86_64-macos.10.13"]
"""The last is the other half of what a Mac's Python builds, and Clang's view of all kernels for x86."""
EMULATED = [
    "test_products.py",
    "test_attention.py",
    "test_chains.py",
    "test_sampling.py",
    "test_decoder.py::test_the_kernels_answer_as_the_plain_decoder",
]
"""Two minutes of tests: what else there is takes the emulator as long again and has no code for Arm of its own."""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with a cross compiler and an emulator, beside what the tests need."""
    return environment(tmp_path_factory.mktemp("arm") / "env", "ziglang==0.17.1", "unicorn==2.1.4", alone=True)


@pytest.mark.parametrize("target", TARGETS)
def test_every_kernel_compiles_without_a_warning(target: str, python: Path, tmp_path: Path) -> None:
    sources = sorted(CPP.glob("*.cpp"))
    assert len(objects(python, tmp_path, target, sources)) == len(sources) > 10


def test_the_kernels_hold_their_own_tests_on_an_emulated_processor(python: Path, tmp_path: Path) -> None:
    settings = {
        "ROSLIN_ARM_KERNELS": str(kernels_for_the_emulator(python, tmp_path / "built")),
        "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in ("src", "tests")),
        "OMP_NUM_THREADS": "1",
    }
    command = [str(python), "-m", "pytest", "-vv", "-m", "not full", "-p", "arm_emulator", "-p", "no:cacheprovider"]
    command += [str(Path(__file__).with_name(name)) for name in EMULATED]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | settings, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    [emulated] = [line for line in done.stdout.splitlines() if line.startswith("emulated: ")]
    assert {"roslin_run", "roslin_paged_attention", "roslin_chain_attention", "roslin_draw"} <= set(emulated.split())
    for level in ("portable", "neon", "neon_dot"):
        assert f"test_a_product_equals_plain_torch[{level}-130-384-int4-128] PASSED" in done.stdout
