"""Packages that a test needs and the project does not: installed beside it, into a folder of their own."""

import atexit
import os
import subprocess
import sys
import tempfile
from functools import cache

import pytest


@cache
def side_package(requirement: str) -> str:
    """A folder to put on PYTHONPATH, without the package's own requirements. Without a network its tests are left out.

    CI must have one.
    """
    folder = tempfile.TemporaryDirectory(prefix="side-package-")
    atexit.register(folder.cleanup)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--target", folder.name, requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and os.environ.get("CI"):
        pytest.fail(f"CI is set, and {requirement} cannot be installed: {done.stderr}")
    if done.returncode:
        pytest.skip(f"needs a wheel of {requirement} for this machine: {' '.join(command)}")
    return folder.name
