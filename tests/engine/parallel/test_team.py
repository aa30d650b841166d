"""The processes that hold a model together, as one of them sees them."""

from pathlib import Path

import pytest

from sharded_runs import torchrun

LEAVES = """
import time
from pathlib import Path
import torch
from roslin.engine.parallel.team import Team

def name(task):
    try:
        return task.joinpath("comm").read_text()
    except OSError:  # it has ended since
        return ""

def exchanging():
    return sum("gloo" in name(task) for task in Path("/proc/self/task").iterdir())

team = Team(torch.device("cpu"))
team.sum(torch.ones(300))
before = exchanging()
if team.is_first:
    team.dismiss()
else:
    team.hear()
    team.leave()
soon = time.monotonic() + 5
while exchanging() and time.monotonic() < soon:  # the system lists one for a moment after its end
    time.sleep(0.01)
Path(f"threads-{team.share.rank}").write_text(f"{before} {exchanging()}")
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="what threads a process has is read from /proc")
def test_no_thread_that_exchanges_lives_on(tmp_path: Path) -> None:
    """One that lets go of a tensor while the interpreter ends aborts the process."""
    (tmp_path / "leaves.py").write_text(LEAVES)
    run = torchrun("--nproc-per-node=2", "leaves.py", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    for rank in range(2):
        before, after = (tmp_path / f"threads-{rank}").read_text().split()
        assert int(before) > 0
        assert int(after) == 0
