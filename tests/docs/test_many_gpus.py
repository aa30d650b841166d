"""The command of docs/many-gpus.md that needs no GPU, as it is written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MARKED = re.compile(r"^```bash run\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.full
def test_the_local_command_runs_as_written(tmp_path: Path) -> None:
    [command] = MARKED.findall((ROOT / "docs" / "many-gpus.md").read_text(encoding="utf-8"))
    for name in ("recipes", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ended = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["runs/two-processes/model"]
    assert (tmp_path / "runs/two-processes/model/model.safetensors").is_file()
