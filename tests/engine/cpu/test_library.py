import ctypes
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cpu_kernels import needs_kernels
from roslin.engine.cpu import library as library_file
from roslin.engine.cpu.library import LEVELS, level, library

ROOT = Path(__file__).parents[3]


def counted(chunks: int, threads: int) -> np.ndarray:
    found = library()
    assert found is not None
    counts = np.zeros(chunks, dtype=np.int32)
    found.roslin_count_chunks(counts.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(chunks), threads)
    return counts


@needs_kernels
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_threads_run_every_chunk_once(threads: int) -> None:
    for chunks in [0, 1, 2, 5, 64, 1000] * 50:
        assert (counted(chunks, threads) == 1).all()


def _in_a_child(results: "multiprocessing.Queue[int]") -> None:
    results.put(int(counted(500, 3).sum()))


@needs_kernels
@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    counted(100, 3)
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[int] = context.Queue()
    child = context.Process(target=_in_a_child, args=(results,))
    child.start()
    assert results.get(timeout=60) == 500
    child.join()


@needs_kernels
def test_the_level_is_one_that_this_processor_has_and_can_be_lowered() -> None:
    found = library()
    assert found is not None
    highest = found.roslin_level()
    assert level() == LEVELS[highest]
    try:
        assert found.roslin_use_level(0) == 0
        assert found.roslin_use_level(highest + 1) == 0
        assert level() == "portable"
    finally:
        assert found.roslin_use_level(highest) == highest


def test_without_the_library_a_warning_says_so_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(library_file.SWITCH, raising=False)
    monkeypatch.setattr(library_file, "library_path", lambda: tmp_path / "_kernels.so")
    library.cache_clear()
    try:
        with pytest.warns(UserWarning, match="no C\\+\\+ compiler at installation") as warned:
            assert library() is None
            assert level() is None
        assert len(warned) == 1
    finally:
        library.cache_clear()


def test_the_library_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library_file.SWITCH, "0")
    library.cache_clear()
    try:
        assert library() is None
    finally:
        library.cache_clear()


@pytest.mark.skipif(sys.platform == "win32", reason="sets the compiler as Unix has it")
def test_a_machine_without_a_compiler_builds_without_the_library(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(tmp_path), "--build-temp"]
    none = {"CC": "no-such-compiler", "CXX": "no-such-compiler"}
    done = subprocess.run(
        [*command, str(tmp_path / "temp")], cwd=ROOT, env=os.environ | none, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("*.so"))
