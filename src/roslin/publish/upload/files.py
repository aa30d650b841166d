"""The files of a folder that an upload would send, and those that must not leave this machine."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CHUNK = 2**20

LEFT_OUT = (
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
    "__pycache__",
    "*.pyc",
    ".ipynb_checkpoints",
    ".cache",
    ".huggingface",
    ".gitattributes",
    ".gitignore",
    ".ms_upload_cache",
    ".msc",
    ".mdl",
    ".mv",
)
"""What file managers, Python and the hubs' own clients leave in folders, and nobody means to send."""
CREDENTIALS = (
    ".env",
    ".env.*",
    "*.env",
    ".netrc",
    "_netrc",
    ".git-credentials",
    ".pypirc",
    ".npmrc",
    "credentials",
    "credentials.*",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    ".aws",
    ".ssh",
    ".databrickscfg",
    "kaggle.json",
)
HISTORIES = (".git", ".hg", ".svn")
TRAINING_STATES = (
    "checkpoint-*",
    "checkpoints",
    "global_step*",
    "update-[0-9]*",
    "optimizer*.pt",
    "optimizer*.bin",
    "scheduler.pt",
    "scaler.pt",
    "rng_state*",
    "trainer_state.json",
    "training_args.bin",
    "*.distcp",
    "*_optim_states.pt",
    "events.out.tfevents.*",
)
UNFINISHED = ("*.partial", "*.incomplete", "*.part", "*.tmp", "*.lock", "*.swp", "*~")
REFUSED = (
    (CREDENTIALS, "a file of credentials by its name: take it out of the folder"),
    (HISTORIES, "a version history, which may hold whatever was ever in it: publish a copy of the folder without it"),
    (TRAINING_STATES, "a state or log of training, not of the model: move it out of the folder"),
    (UNFINISHED, "something unfinished, or a lock: let whatever writes it end, or remove it"),
)


@dataclass(frozen=True)
class SentFile:
    """A file on its way to a hub: its path within the folder, with slashes, where it lies, and its size in bytes."""

    name: str
    path: Path
    size: int

    @cached_property
    def sha256(self) -> str:
        """The hash by which hubs know large files."""
        return self._digest(hashlib.sha256())

    @cached_property
    def git_sha1(self) -> str:
        """The hash by which git, and with it a hub, knows small files."""
        return self._digest(hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False))

    def _digest(self, digest: hashlib._Hash) -> str:
        with self.path.open("rb") as source:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
        return digest.hexdigest()


@dataclass(frozen=True)
class Found:
    """What is in a folder: files to send, names that are left out, and what is wrong, a line each."""

    files: list[SentFile]
    left_out: list[str]
    faults: list[str]


def files_of(folder: Path) -> Found:
    """All that is in a folder, in the order of names. A folder or file that is refused is named once, not entered."""
    found = Found([], [], [])
    _enter(folder, folder.resolve(), folder, found)
    return found


def _enter(root: Path, real_root: Path, folder: Path, found: Found) -> None:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        found.faults.append(f"{_name(root, folder)}/: cannot be read ({error.strerror})")
        return
    for path in entries:
        name = _name(root, path)
        if _any(path.name, LEFT_OUT):
            found.left_out.append(name + ("/" if path.is_dir() else ""))
        elif (fault := _fault(real_root, path)) is not None:
            found.faults.append(f"{name}{'/' if path.is_dir() else ''}: {fault}")
        elif path.is_dir():
            _enter(root, real_root, path, found)
        else:
            found.files.append(SentFile(name, path, path.stat().st_size))


def _fault(real_root: Path, path: Path) -> str | None:
    """Why this cannot be sent."""
    for patterns, why in REFUSED:
        if _any(path.name, patterns):
            return why
    if path.is_symlink() and not path.exists():
        return f"a link to nothing ({path.readlink()}): remove it, or put the file there"
    if path.is_symlink() and not path.resolve().is_relative_to(real_root):
        return "a link out of the folder: publish a copy in which it is a file (`cp -rL FOLDER COPY`)"
    if path.is_symlink() and path.is_dir():
        return "a link to a folder: publish a copy in which it is one (`cp -rL FOLDER COPY`)"
    if not path.is_dir() and not path.is_file():
        return "neither a file nor a folder: remove it"
    if not path.name.isprintable() or "\\" in path.name:
        return "a name that hubs do not take: rename it"
    if path.is_file() and not os.access(path, os.R_OK):
        return "not readable: give yourself leave to read it (`chmod u+r`)"
    return None


def _any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
