"""Parts of the starter records, for runs that take seconds."""

from pathlib import Path

import pytest


@pytest.fixture
def some_starter_records(base_folder: Path, tmp_path: Path) -> Path:
    """Every fourth starter record."""
    lines = (base_folder.parent / "records" / "starter.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    path = tmp_path / "some.jsonl"
    path.write_text("".join(lines[::4]), encoding="utf-8")
    return path
