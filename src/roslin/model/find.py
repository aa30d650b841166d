"""Finding a model by name: a local folder, the base that ships with Roslin, or a name on the Hugging Face hub."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from roslin.errors import InputError

SHIPPED = "base"
# What a model folder needs beside its weights: configuration, tokenizer, chat template.
TEXT_FILES = ["*.json", "*.txt", "*.jinja"]
SAFETENSORS_FILES = ["model*.safetensors"]
BIN_FILES = ["pytorch_model*.bin"]
HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def find_model(name: str, revision: str | None = None) -> Path:
    """The folder of a model.

    `base` is the small base that ships with Roslin (`./base` is a folder of that name); a folder's path is itself;
    any `owner/name` else is looked for on the hub, by way of its local cache, at `revision` (a branch, tag or commit).
    Raises InputError that says what was looked for and where.
    """
    local = _local(name)
    if local and revision:
        raise InputError(f"revision {revision!r} picks a version on the hub, and {name} lies here: leave it out.")
    if local and not local.is_dir():
        raise InputError(f"{name} is a file; a model is a folder with config.json, weights and a tokenizer.")
    if local:
        return local
    if not HUB_NAME.fullmatch(name):
        raise InputError(
            f"No model {name!r}: there is no such folder (looked from {Path.cwd()}), "
            f"and it is neither {SHIPPED!r} nor a hub name of the form owner/name."
        )
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


def _from_hub(name: str, revision: str | None) -> Path:
    folder = _snapshot(name, revision, TEXT_FILES + SAFETENSORS_FILES)
    if any(folder.glob(pattern) for pattern in SAFETENSORS_FILES):
        return folder
    return _snapshot(name, revision, TEXT_FILES + BIN_FILES)


def _snapshot(name: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import constants, snapshot_download

    try:
        # Told to stay offline, huggingface_hub 1 asks the network for a commit all the same, unless told here as well.
        local = constants.HF_HUB_OFFLINE
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=local))
    except Exception as error:  # errors of its HTTP library come through, and which library that is has changed twice
        raise InputError(_not_found(name, revision, error)) from None


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
