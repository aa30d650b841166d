"""Models on ModelScope, by way of the cache that ModelScope's own client keeps on this machine."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import orjson

from roslin.errors import InputError, MachineError
from roslin.model.hub import (
    BIN_FILES,
    SAFETENSORS_FILES,
    SHARD,
    TEXT_FILES,
    missing_files,
    offline,
    the_one_gguf,
    unreached,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelscope_hub import HubApi

PREFIX = "modelscope:"
TRUNK = "master"
"""The branch that ModelScope means where none is named."""
LOG_LEVEL = "MODELSCOPE_LOG_LEVEL"


def from_modelscope(name: str, file: str | None = None, revision: str | None = None) -> Path:
    """A model's folder in the cache of ModelScope's client, or one GGUF file in it: `file`, or the only one there is.

    What is missing is downloaded, safetensors rather than .bin, each file checked against its sha256. A token of
    MODELSCOPE_API_TOKEN or of `ms-hub login` opens private models. Raises InputError that says what is missing where
    ModelScope is out of reach or does not give it, and MachineError where its client is not installed.
    """
    api = client()
    silent = offline() or unreached(endpoint_of(api))
    repository = _Repository(api, name, revision, silent)
    return repository.cached(file) if silent else repository.fetched(file)


def modelscope_cached(name: str, file: str | None, revision: str | None, why: str) -> Path:
    """What of a model is in the cache, without asking ModelScope; an InputError says that it is not, and `why`."""
    return _Repository(client(), name, revision, why).cached(file)


def client() -> HubApi:
    """ModelScope's client, as it is set up and logged in now. Raises MachineError if it is not installed."""
    try:
        from modelscope_hub import HubApi, HubConfig
    except ImportError:
        raise MachineError(
            "ModelScope is reached through its own client, which is not installed: pip install 'roslin[modelscope]'."
        ) from None
    if LOG_LEVEL not in os.environ:
        logging.getLogger("modelscope_hub").setLevel(logging.CRITICAL)  # errors are told by Roslin, and once
    return HubApi(HubConfig())


def endpoint_of(api: HubApi) -> str:
    """The address of the site that is asked."""
    return str(api.legacy.endpoint)


def first_line(error: Exception) -> str:
    """What an error of the client says, without the request and the reply that it adds."""
    told = getattr(error, "message", None) or str(error) or "no reason given"
    status = getattr(error, "status_code", None)
    return f"{type(error).__name__}: {told.strip().splitlines()[0]}" + (f" (HTTP {status})" if status else "")


@dataclass(frozen=True)
class _Repository:
    """A repository at a revision (None is its trunk). `silent` is why it is not asked for; None where it is."""

    api: HubApi
    name: str
    revision: str | None
    silent: str | None

    def fetched(self, file: str | None) -> Path:
        listed = self._listed()
        ggufs = [path for path in listed if path.endswith(".gguf")]
        if file is None and not _some(listed, [*SAFETENSORS_FILES, *BIN_FILES]) and ggufs:
            file = the_one_gguf(PREFIX + self.name, ggufs)
        if file is None:
            weights = SAFETENSORS_FILES if _some(listed, SAFETENSORS_FILES) else BIN_FILES
            return self._download([listed[path] for path in listed if _fits(path, [*TEXT_FILES, *weights])])
        if file not in listed:
            there = ", ".join(f"{PREFIX}{self.name}/{path}" for path in ggufs)
            raise InputError(f"{PREFIX}{self.name}/{file} is not on ModelScope. GGUF files there: {there or 'none'}.")
        return self._download([listed[path] for path in listed if fnmatch(path, _parts_of(file))]) / file

    def cached(self, file: str | None) -> Path:
        folder = self._folder()
        if folder is None:
            raise InputError(self._not_found(f"ModelScope is not asked: {self.silent}"))
        ggufs = [str(path.relative_to(folder)) for path in folder.rglob("*.gguf")]
        if file is None and not _some([path.name for path in folder.iterdir()], [*SAFETENSORS_FILES, *BIN_FILES]):
            file = the_one_gguf(PREFIX + self.name, ggufs) if ggufs else None
        missing = missing_files(folder) if file is None else [] if (folder / file).is_file() else [file]
        if missing:
            raise InputError(
                f"{PREFIX}{self.name} is in ModelScope's cache only in part, {folder}. Missing: {', '.join(missing)}. "
                f"ModelScope is not asked: {self.silent}. {self._what_to_do()}"
            )
        return folder / file if file else folder

    def _listed(self) -> dict[str, Any]:
        """The files of the repository by their paths."""
        from modelscope_hub.errors import HubError

        try:
            found = self.api.list_repo_files(self.name, "model", revision=self.revision or TRUNK)
        except (HubError, OSError) as error:
            raise InputError(self._not_found(f"ModelScope did not list it: {first_line(error)}")) from None
        return {file.path: file for file in found if not file.is_dir and _stays_inside(file.path)}

    def _download(self, files: Sequence[Any]) -> Path:
        """The folder with these files, each of them as it is on ModelScope."""
        from modelscope_hub.errors import HubError

        proven = _Proven.of(self._folder())
        wanted = [file for file in files if not proven.holds(file)]
        told = [{"Path": file.path, "Size": file.size, "Sha256": file.sha256, "Type": "blob"} for file in wanted]
        try:
            folder = Path(self.api.download_repo(self.name, "model", revision=self.revision or TRUNK, file_list=told))
        except (HubError, OSError) as error:
            raise InputError(self._not_found(f"ModelScope did not give it: {_reason(error)}")) from None
        _Proven.of(folder).note(files)
        return folder

    def _folder(self) -> Path | None:
        from modelscope_hub.errors import CacheError

        try:
            return Path(self.api.download_repo(self.name, "model", revision=self.revision, local_files_only=True))
        except (CacheError, OSError):
            return None

    def _not_found(self, reason: str) -> str:
        from modelscope_hub import HubConfig

        at = f" at revision {self.revision!r}" if self.revision else ""
        lines = [
            f"Model {PREFIX + self.name!r}{at} was not found:",
            f"  not in ModelScope's cache at {HubConfig().cache_dir}",
            f"  {reason}",
            "Check the spelling, and the revision: ModelScope's trunk is `master`. Set MODELSCOPE_API_TOKEN or log in",
            f"(`ms-hub login`) for a model that is private. {self._what_to_do()}",
        ]
        return "\n".join(lines)

    def _what_to_do(self) -> str:
        at = f" --revision {self.revision}" if self.revision else ""
        command = f"ms-hub download {self.name}{at}"
        return f"Without a network, download it where there is one (`{command}`), and copy the cache."


@dataclass(frozen=True)
class _Proven:
    """Which files of a folder were checked against their sha256, and have not been written to since.

    ModelScope's client reads every file again to see whether it is the one that the site has: half a minute for a large
    model, at each start.
    """

    folder: Path | None
    seen: dict[str, list[Any]]

    @classmethod
    def of(cls, folder: Path | None) -> _Proven:
        try:
            found = orjson.loads(cls._record(folder).read_bytes()) if folder else {}
        except (OSError, ValueError):
            found = {}
        return cls(folder, found if isinstance(found, dict) else {})

    def holds(self, file: Any) -> bool:
        """Whether a file is here as the site has it."""
        stamp = self._stamp(file.path)
        return stamp is not None and self.seen.get(file.path) == [file.sha256, *stamp] and file.sha256 is not None

    def note(self, files: Sequence[Any]) -> None:
        """Write down that these files were checked; a folder that cannot be written to is checked again next time."""
        if self.folder is None:
            return
        stamps = {file.path: [file.sha256, *(self._stamp(file.path) or ())] for file in files}
        try:
            self._record(self.folder).write_bytes(orjson.dumps(self.seen | stamps))
        except OSError:
            return

    def _stamp(self, path: str) -> tuple[int, int] | None:
        try:
            found = (self.folder / path).stat() if self.folder else None
        except OSError:
            return None
        return (found.st_size, found.st_mtime_ns) if found else None

    @staticmethod
    def _record(folder: Path) -> Path:
        return folder.with_name(f".{folder.name}.checked.json")


def _reason(error: Exception) -> str:
    """What is wrong with the first file that failed, where several were asked for."""
    failed = getattr(error, "failed_files", None)
    if not failed:
        return first_line(error)
    path, cause = next(iter(failed.items()))
    return f"{path}: {first_line(cause)}"


def _parts_of(file: str) -> str:
    """The pattern of a GGUF file, with all parts of a split one."""
    return SHARD.sub(r"-*-of-\1", file.removesuffix(".gguf")) + ".gguf"


def _fits(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(path, pattern) for pattern in patterns)


def _some(paths: Sequence[str] | dict[str, Any], patterns: Sequence[str]) -> bool:
    return any(_fits(path, patterns) for path in paths)


def _stays_inside(path: str) -> bool:
    """Whether a path that the site names is one within the folder."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts
