"""The consoles of the command line."""

import os
import subprocess
import sys
from pathlib import Path


def test_jupyters_wish_for_colours_moves_no_cursor_in_what_is_no_terminal(tmp_path: Path) -> None:
    """Jupyter's kernels set FORCE_COLOR, and Rich takes any stream for a terminal then."""
    records = tmp_path / "records.jsonl"
    records.write_text('{"instruction": "Who came?", "response": "Ann."}\n')
    for command in (["records", "check", str(records)], ["table", "--gaps"]):
        ended = subprocess.run(
            [sys.executable, "-m", "roslin", *command],
            env={**os.environ, "FORCE_COLOR": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert ended.stdout
        assert "\x1b" not in ended.stdout + ended.stderr
