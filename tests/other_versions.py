"""Virtual environments with other packages, over the one that the tests run in; and scripts run in them."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest


def environment(folder: Path, *packages: str, alone: bool) -> Path:
    """The python of a new environment that holds `packages` (`alone`: without what they need) before those of this one.

    Without a network its tests are left out; CI must have one.
    """
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    [places] = folder.glob("lib/python*/site-packages")
    (places / "zz_below.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    how = ["--no-deps", "--only-binary", ":all:"] if alone else []
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *how, *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and os.environ.get("CI"):
        pytest.fail(f"CI is set, and {packages} cannot be installed: {done.stderr}")
    if done.returncode:
        pytest.skip(f"needs {packages} from the package index: {done.stderr[-300:]}")
    return python


def run(python: Path, script: str, *arguments: str, cache: Path, **more: str) -> str:
    """What a script prints last, offline. Fails with what it says when it fails."""
    settings = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(cache), "OMP_NUM_THREADS": "1", **more}
    done = subprocess.run(
        [str(python), "-c", script, *arguments], capture_output=True, text=True, check=False, env=os.environ | settings
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]
