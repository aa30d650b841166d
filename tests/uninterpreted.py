"""Scripts of the tests that Triton really compiles for: its interpreter, in which all others run, is left off."""

import os
import subprocess
import sys
from pathlib import Path


def lines_of(script: Path, *words: str) -> list[str]:
    """What a script prints; it must succeed."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, str(script), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
