"""The demo's folder: how it knows its own, and what it removes to start over."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from roslin.errors import InputError
from roslin.tune.state import flush
from roslin.workflows.machine import writing
from roslin.workflows.run_folder import LOCK, drop_run

MARKER = "demo.json"
"""Says that a folder is the demo's, and of which Roslin, records and recipe."""
RECORD_FILES = ("train.jsonl", "stopping.jsonl", "judged.jsonl", "reworded.jsonl")
STATE_FILES = ("before.json", "tuned.json", "after.json", "result.json", "clock.json")

Fingerprint = dict[str, str]
State = Literal["new", "current", "outdated"]


def state_of(folder: Path, fingerprint: Fingerprint) -> State:
    """Whether a demo was begun in `folder`, and whether it was this one.

    Raises InputError for a file, and for a folder with something in it that no demo marked as its own.
    """
    if not folder.exists():
        return "new"
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; the demo needs a folder. Give another --folder.")
    marker = read_json(folder / MARKER)
    if marker is not None and marker.keys() == fingerprint.keys():
        return "current" if marker == fingerprint else "outdated"
    if any(path.name != LOCK for path in folder.iterdir()):
        raise InputError(f"{folder} is not empty, and the demo did not make it. Give another --folder.")
    return "new"


def claim(folder: Path, fingerprint: Fingerprint) -> None:
    """Mark a folder as the demo's. Raises MachineError when it cannot be written to."""
    write_json(folder / MARKER, fingerprint)


def clear(folder: Path) -> None:
    """Remove what the demo wrote, by name; other people's files and the marker stay."""
    drop_run(folder / "run")
    (folder / "run" / LOCK).unlink(missing_ok=True)
    shutil.rmtree(folder / "model", ignore_errors=True)
    shutil.rmtree(folder / "model.partial", ignore_errors=True)
    for name in RECORD_FILES:
        (folder / "records" / name).unlink(missing_ok=True)
    for name in STATE_FILES:
        (folder / name).unlink(missing_ok=True)
    for name in ("run", "records"):
        with suppress(OSError):  # not there, or something of somebody else's is in it
            (folder / name).rmdir()


def stored(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `path` holds, made and written first if it is not there or broken."""
    values = read_json(path)
    if values is None:
        values = make()
        write_json(path, values)
    return values


def read_json(path: Path) -> dict[str, Any] | None:
    """The object that a file holds; None when there is no file, or it is broken."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def write_json(path: Path, values: dict[str, Any] | Fingerprint) -> None:
    """Write an object; the file is there whole or not at all. Raises MachineError when it cannot be written."""
    partial = path.with_suffix(".partial")
    with writing(path):
        partial.write_text(json.dumps(values, indent=1, ensure_ascii=False), encoding="utf-8")
        flush(partial)
        partial.replace(path)
