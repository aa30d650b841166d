"""Files of records made on the spot."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from record_files import MakeFile


@pytest.fixture
def make_file(tmp_path: Path) -> MakeFile:
    """Write rows (objects, or lines as bytes) as JSON lines."""

    def make(*rows: Mapping[str, Any] | bytes, name: str = "records.jsonl", end: bytes = b"\n") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + end for r in rows))
        return path

    return make
