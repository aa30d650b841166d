"""Tests of the C++ kernels, which are left out where no compiler could build them, and only there."""

import shutil

import pytest

from roslin.engine.cpu.library import library_path

COMPILERS = ("g++", "c++", "clang++", "cl")

needs_kernels = pytest.mark.skipif(
    not library_path().is_file() and not any(map(shutil.which, COMPILERS)),
    reason="needs the C++ kernels, and there is no compiler here that could build them",
)
