"""What people read when a file could not be written."""

from pathlib import Path

import pytest
import torch

from roslin.errors import write_failed


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_as_such_in_whatever_words_torch_puts_it() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.save({"weight": torch.zeros(100_000)}, "/dev/full")
    told = write_failed(Path("run/checkpoints/update-000008"), caught.value)
    assert "update-000008: the disk is full" in str(told)
    assert told.exit_code == 3


def test_another_failure_is_told_in_its_own_words() -> None:
    assert "Permission denied" in str(write_failed(Path("log.jsonl"), PermissionError(13, "Permission denied")))
