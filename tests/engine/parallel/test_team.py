"""The processes that hold a model together, as one of them sees them."""

from pathlib import Path

from sharded_runs import torchrun

LEAVES = """
import time
from pathlib import Path
import torch
import torch.distributed as dist
from roslin.engine.parallel.team import Team

team = Team(torch.device("cpu"))
x = torch.ones(300)
if team.is_first:
    dist.all_reduce(x, async_op=True)
    Path("before").write_text(str(x.sum().item()))
    team.dismiss()
    Path("after").write_text(str(x.sum().item()))
else:
    time.sleep(1)
    team.sum(x)
    team.hear()
    team.leave()
"""


def test_it_leaves_when_every_exchange_has_ended(tmp_path: Path) -> None:
    """A thread that still had one while the interpreter ends would abort the process."""
    (tmp_path / "leaves.py").write_text(LEAVES, encoding="utf-8")
    run = torchrun("--nproc-per-node=2", "leaves.py", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "before").read_text(encoding="utf-8") == "300.0"
    assert (tmp_path / "after").read_text(encoding="utf-8") == "600.0"
