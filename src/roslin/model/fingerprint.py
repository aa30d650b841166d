"""What a model is, as a hash: equal for two folders only if their weights, configuration and tokenizer are."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

from roslin.gguf_file import is_gguf
from roslin.model.adapter import base_of, is_adapter
from roslin.model.files import WEIGHT_SUFFIXES
from roslin.model.packaged import cache_folder

SETTINGS = (
    "config.json",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
    "tokenizer.model",
)
LARGE = 2**20
"""Bytes from which on a file's hash is remembered: hashing 13 GB takes a minute from a slow disk."""
KEPT = 1000


def fingerprint(model: Path) -> str:
    """The hash of a model that `find_model` found: a folder, an adapter (and its base), or one file.

    The files of weights are read whole, once; their hashes are remembered by path, size and time of change.
    """
    digest = hashlib.sha256()
    known = _Remembered()
    for path in sorted(_files(model)):
        digest.update(f"{path.name} {known.sha256(path)}\n".encode())
    known.keep()
    if model.is_dir() and is_adapter(model):
        digest.update(fingerprint(base_of(model)).encode())
    return digest.hexdigest()


def _files(model: Path) -> list[Path]:
    folder = model if model.is_dir() else model.parent
    if is_gguf(model):
        parts = folder.glob(f"{model.name.split('-00001-of-')[0]}*.gguf") if "-of-" in model.name else [model]
        return list(parts)
    weights = [path for path in folder.iterdir() if path.suffix in WEIGHT_SUFFIXES] if model.is_dir() else [model]
    return [path for path in (*weights, *(folder / name for name in SETTINGS)) if path.is_file()]


class _Remembered:
    """Hashes of large files, kept in a file of the cache."""

    def __init__(self) -> None:
        self._path = cache_folder() / "sha256.json"
        self._new: dict[str, str] = {}
        try:
            self._known: dict[str, str] = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none yet, or one that was cut off: hashes can be had again
            self._known = {}

    def sha256(self, path: Path) -> str:
        real = path.resolve()
        state = real.stat()
        place = f"{real} {state.st_size} {state.st_mtime_ns} {state.st_ino}"
        found = self._known.get(place)
        if found is None:
            with real.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if state.st_size >= LARGE:
                self._new[place] = found
        return found

    def keep(self) -> None:
        """Remember what was new; a cache that cannot be written is none."""
        if not self._new:
            return
        entries = list((self._known | self._new).items())[-KEPT:]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._path.parent, delete=False, encoding="utf-8") as file:
                json.dump(dict(entries), file)
            Path(file.name).replace(self._path)
        except OSError:
            return
