"""What a model is, as a hash: equal for two folders only if their weights, configuration and tokenizer are."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

from roslin.errors import InputError
from roslin.gguf_file import PART, is_gguf
from roslin.model.adapter import base_of, is_adapter
from roslin.model.files import json_object, weight_paths
from roslin.model.packaged import cache_folder
from roslin.model.stored_adapter import WEIGHT_FILES as ADAPTER_FILES

SETTINGS = (
    "config.json",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "added_tokens.json",
)
"""Of settings and tokenizers, Roslin's and those that transformers reads; code that a folder brings is one too."""
LARGE = 2**20
"""Bytes from which on a file's hash is remembered: hashing 13 GB takes a minute from a slow disk."""
KEPT = 1000


def fingerprint(model: Path) -> str:
    """The hash of a model that `find_model` found: a folder, an adapter (and its base), or one file.

    The files of weights are read whole, once; their hashes are remembered by path, size and time of change. What else
    lies in the folder, such as a training's state, does not count. Raises InputError for a folder without weights, and
    for a file that cannot be read.
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
    if is_gguf(model):
        return _parts(model)
    folder = model if model.is_dir() else model.parent
    settings = [*(folder / name for name in SETTINGS), *folder.glob("*.py")]
    return [path for path in (*_weights(model), *settings) if path.is_file()]


def _weights(model: Path) -> list[Path]:
    if model.is_dir() and is_adapter(model):
        return [model / next((name for name in ADAPTER_FILES if (model / name).is_file()), ADAPTER_FILES[0])]
    return weight_paths(model)


def _parts(model: Path) -> list[Path]:
    """A GGUF file, with the others that it was split into."""
    part = PART.search(model.name)
    if not part:
        return [model]
    names = (f"{model.name[: part.start()]}-{number:05d}-of-{part[2]}.gguf" for number in range(1, int(part[2]) + 1))
    return [path for path in map(model.with_name, names) if path.is_file()]


class _Remembered:
    """Hashes of large files, kept in a file of the cache."""

    def __init__(self) -> None:
        self._path = cache_folder() / "sha256.json"
        self._new: dict[str, str] = {}
        try:
            self._known: dict[str, str] = json_object(self._path)
        except InputError:  # none yet, or one that was cut off: hashes can be had again
            self._known = {}

    def sha256(self, path: Path) -> str:
        real = path.resolve()
        state = real.stat()
        place = f"{real} {state.st_size} {state.st_mtime_ns} {state.st_ino}"
        found = self._known.get(place)
        if found is None:
            found = _sha256(real)
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


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
