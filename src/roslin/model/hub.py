"""Models on the Hugging Face hub, by way of its cache on this machine."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import orjson

from roslin.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

TEXT_FILES = ("*.json", "*.txt", "*.jinja", "README.md")
"""What stands beside a model's weights: configuration, tokenizer, chat template, and the card for its licence."""
SAFETENSORS_FILES = ("model*.safetensors", "adapter_model.safetensors")
BIN_FILES = ("pytorch_model*.bin", "adapter_model.bin")
SHARD = re.compile(r"-\d{5}-of-(\d{5})$")
LONGEST_WAIT = 5
"""Seconds within which the hub must answer, or it is taken to be out of reach. Its own client tries for half a minute,
and longer where names are resolved slowly."""


def from_hub(name: str, revision: str | None) -> Path:
    """A repository's folder in the hub's cache, or the one GGUF file in it where that is all it holds.

    What is missing is downloaded. Raises InputError that says what is missing where the hub is out of reach or does
    not give it, and one that lists the GGUF files where there are several.
    """
    repository = Repository(name, revision, why_silent())
    folder = repository.fetch([*TEXT_FILES, *SAFETENSORS_FILES])
    if not holds(folder, SAFETENSORS_FILES):
        folder = repository.fetch([*TEXT_FILES, *BIN_FILES])
    if not holds(folder, [*SAFETENSORS_FILES, *BIN_FILES]) and (ggufs := repository.ggufs(folder)):
        return repository.fetch_gguf(the_one_gguf(name, ggufs))
    repository.check_whole(folder)
    return folder


def gguf_from_hub(name: str, file: str, revision: str | None) -> Path:
    """One GGUF file of a repository, with its other parts if it is split. Raises InputError as `from_hub`."""
    return Repository(name, revision, why_silent()).fetch_gguf(file)


def holds(folder: Path, patterns: Sequence[str]) -> bool:
    """Whether any file of these patterns is in a folder."""
    return any(True for pattern in patterns for _ in folder.glob(pattern))


def the_one_gguf(place: str, names: Sequence[str]) -> str:
    """The only one of several GGUF files that is none of another's later parts. Raises InputError if it is not one."""
    first = sorted(name for name in names if not SHARD.search(name[:-5]) or "-00001-of-" in name)
    if len(first) == 1:
        return first[0]
    if not first:
        raise InputError(f"{place} holds only later parts of a split GGUF file: its first is missing.")
    lines = [f"  {place}/{name}" for name in first]
    raise InputError("\n".join([f"{place} holds several GGUF files. Give one of them:", *lines]))


def why_silent() -> str | None:
    """Why the hub is not asked for anything; None where it answers."""
    from huggingface_hub import constants

    return offline() or unreached(constants.ENDPOINT)


def offline() -> str | None:
    """Why no hub is asked for anything: a person said so. None where nobody did."""
    from huggingface_hub import constants

    return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else None


def unreached(endpoint: str) -> str | None:
    """Why a site does not answer; None where it does."""
    answers: list[str | None] = []
    # In a thread of its own: looking up the hub's address cannot be told when to give up.
    thread = Thread(target=_knock, args=(endpoint, answers), daemon=True)
    thread.start()
    thread.join(LONGEST_WAIT)
    return answers[0] if answers else f"{endpoint} does not answer within {LONGEST_WAIT} seconds"


def _knock(endpoint: str, answers: list[str | None]) -> None:
    from huggingface_hub import get_session

    try:
        get_session().head(endpoint, timeout=LONGEST_WAIT)
    except Exception as error:  # errors of its HTTP library come through, and which library that is has changed twice
        answers.append(f"{endpoint} is out of reach ({in_a_line(error)})")
    else:
        answers.append(None)


@dataclass(frozen=True)
class Repository:
    """A repository at a revision (None is its main branch). `silent` is why the hub is not asked; None where it is."""

    name: str
    revision: str | None
    silent: str | None

    def fetch(self, patterns: Sequence[str]) -> Path:
        """Its folder in the cache; with all files of these patterns, if the hub is asked."""
        from huggingface_hub import snapshot_download

        if self.silent:
            return self._cached()
        try:
            return Path(snapshot_download(self.name, revision=self.revision, allow_patterns=list(patterns)))
        except Exception as error:  # as above
            raise InputError(self._not_found(f"the hub did not give it: {in_a_line(error)}")) from None

    def fetch_gguf(self, file: str) -> Path:
        """One GGUF file, with all parts of a split one."""
        folder = self.fetch([SHARD.sub(r"-*-of-\1", file.removesuffix(".gguf")) + ".gguf"])
        if not (folder / file).is_file():
            others = ", ".join(f"{self.name}/{name}" for name in self.ggufs(folder))
            where = f"in the hub's cache, {folder} ({self.silent})" if self.silent else "on the hub"
            raise InputError(f"{self.name}/{file} is not {where}. GGUF files there: {others or 'none'}.")
        return folder / file

    def ggufs(self, folder: Path) -> list[str]:
        """Its GGUF files; those in the cache, where the hub is not asked."""
        from huggingface_hub import list_repo_files

        if self.silent:
            return [str(path.relative_to(folder)) for path in folder.rglob("*.gguf")]
        try:
            return [file for file in list_repo_files(self.name, revision=self.revision) if file.endswith(".gguf")]
        except Exception as error:  # as above
            raise InputError(self._not_found(f"the hub did not list it: {in_a_line(error)}")) from None

    def check_whole(self, folder: Path) -> None:
        """Raise InputError, with what is there and what is missing, where the hub is silent and the cache in part."""
        missing = missing_files(folder)
        if not self.silent or not missing:
            return
        there = sorted(path.name for path in folder.iterdir() if path.exists())
        lines = [
            f"{self.name} is in the hub's cache only in part, {folder}:",
            f"  there: {', '.join(there) or 'nothing'}",
            f"  missing: {', '.join(missing)}",
            *self._broken_off(),
            f"  the hub is not asked: {self.silent}",
            f"Download it where there is a network (`{self._download}`) and copy the cache.",
        ]
        raise InputError("\n".join(lines))

    def _broken_off(self) -> list[str]:
        """What is left in the cache of downloads that did not end."""
        sizes = [path.stat().st_size for path in (self._home / "blobs").glob("*.incomplete")]
        return [f"  broken off while they came: {len(sizes)}, with {sum(sizes):,} bytes so far"] if sizes else []

    @property
    def _home(self) -> Path:
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE) / f"models--{self.name.replace('/', '--')}"

    @property
    def _download(self) -> str:
        return f"hf download {self.name}" + (f" --revision {self.revision}" if self.revision else "")

    def _cached(self) -> Path:
        with suppress(OSError):  # a name or revision too long for a file system
            reference = self._home / "refs" / (self.revision or "main")
            commit = reference.read_text(errors="replace").strip() if reference.is_file() else self.revision
            if commit and (folder := self._home / "snapshots" / commit).is_dir():
                return folder
        raise InputError(self._not_found(f"the hub is not asked: {self.silent}"))

    def _not_found(self, reason: str) -> str:
        at = f" at revision {self.revision!r}" if self.revision else ""
        lines = [
            f"Model {self.name!r}{at} was not found:",
            f"  no such folder (looked from {Path.cwd()})",
            f"  not in the hub's cache at {self._home.parent}",
            f"  {reason}",
            "Check the spelling; log in (`hf auth login`) for a model that is private or gated. Without a network, or",
            f"with HF_HUB_OFFLINE set, download it first where there is one (`{self._download}`) and copy the cache,",
            "or give the path of a folder.",
        ]
        return "\n".join(lines)


def missing_files(folder: Path) -> list[str]:
    """The files that a model's, or an adapter's, folder lacks."""
    needed = {"config.json"} if not (folder / "adapter_config.json").exists() else set()
    shards = {shard for index in folder.glob("*.index.json") for shard in _listed(index)}
    missing = sorted(file for file in needed | shards if not (folder / file).exists())
    if not shards and not holds(folder, [*SAFETENSORS_FILES, *BIN_FILES]):
        missing.append("weights (model.safetensors, or an index and its shards)")
    if missing and not (folder / "tokenizer.json").exists():
        missing.append("tokenizer.json")
    return missing


def _listed(index: Path) -> set[str]:
    """The shards that an index names; what is wrong with the index itself is told when weights are read."""
    try:
        return {str(name) for name in orjson.loads(index.read_bytes())["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def in_a_line(error: Exception) -> str:
    """An error's kind and the first line of what it says."""
    words = str(error).strip().splitlines()
    return f"{type(error).__name__}: {words[0] if words else 'no reason given'}"
