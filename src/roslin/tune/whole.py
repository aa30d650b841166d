"""Small files of a run that are there whole or not at all, whenever the run is killed."""

import json
from pathlib import Path
from typing import Any

from roslin.errors import write_failed


def write_whole(path: Path, text: str) -> None:
    """Write a text file, making its folder; a reader sees the old one or the new one. Raises MachineError."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise write_failed(path, error) from error


def write_json(path: Path, values: Any) -> None:
    """Write plain values as JSON that people can read. Raises MachineError."""
    write_whole(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """What `write_json` wrote; None where there is no such file, or no object in it."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None
