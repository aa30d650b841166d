"""Where a model lies on this machine, without asking the network."""

from __future__ import annotations

from pathlib import Path

from roslin.errors import InputError
from roslin.model import stored_adapter
from roslin.model.files import WEIGHT_FILES, shards
from roslin.model.find import HUB_FILE, HUB_NAME, MODELSCOPE_NAME, find_model
from roslin.model.hub import Repository, the_one_gguf
from roslin.model.modelscope_hub import modelscope_cached
from roslin.model.packaged import PACKAGED, packaged_file
from roslin.model.peft_config import CONFIG
from roslin.model.published import PUBLISHED

NOT_ASKED = "only what is on this machine is looked at"


def local_folder(name: str, revision: str | None = None) -> Path | None:
    """The folder or file that `find_model` would give if there were no network; None for a model that is not here.

    Raises InputError for a name that can be neither a folder nor a model that Roslin or the hub might have, and for
    a repository of several GGUF files.
    """
    if HUB_NAME.fullmatch(name) and not is_path(name):
        return _cached(name, revision)
    if (in_repository := HUB_FILE.fullmatch(name)) and not is_path(name):
        return Repository(in_repository[1], revision, NOT_ASKED).fetch_gguf(in_repository[2])
    if (on_modelscope := MODELSCOPE_NAME.fullmatch(name)) and not is_path(name):
        return _on_modelscope(on_modelscope[1], on_modelscope[2], revision)
    if name in PACKAGED:
        file = packaged_file(name)
        return file if file.is_file() else None
    try:
        return find_model(name)
    except InputError:
        if name in PUBLISHED:
            return None
        raise


def has_weights(folder: Path) -> bool:
    """Whether a model's weights, or an adapter's, are there, every shard of them."""
    names = (*WEIGHT_FILES, *stored_adapter.WEIGHT_FILES)
    return folder.is_file() or any(_is_whole(folder / name) for name in names)


def licence_in(folder: Path) -> str | None:
    """What a folder's card says of the licence, as the hub spells it."""
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    try:
        licence = (metadata_load(folder / "README.md") or {}).get("license")
    except (OSError, ValueError, YAMLError):  # no card, or one that cannot be read
        return None
    return licence if isinstance(licence, str) else None


def is_path(name: str) -> bool:
    """Whether something lies under this name here, which then goes before a model of the hub."""
    try:
        return Path(name).exists()
    except OSError:  # too long for a file system
        return False


def _cached(name: str, revision: str | None) -> Path | None:
    """What the hub's cache has of a repository: its folder, or the one GGUF file where that is all it holds."""
    repository = Repository(name, revision, NOT_ASKED)
    try:
        folder = repository.fetch([])
    except InputError:
        return None
    if any((folder / file).is_file() for file in ("config.json", CONFIG)):
        return folder
    ggufs = repository.ggufs(folder)
    return folder / the_one_gguf(name, ggufs) if ggufs else None


def _on_modelscope(name: str, file: str | None, revision: str | None) -> Path | None:
    try:
        return modelscope_cached(name, file, revision, NOT_ASKED)
    except InputError:
        return None


def _is_whole(path: Path) -> bool:
    if path.suffix != ".json" or not path.is_file():
        return path.is_file()
    try:
        return all(shard.is_file() for shard in shards(path))
    except InputError:
        return False
