"""Where a model lies on this machine, without asking the network."""

from __future__ import annotations

from pathlib import Path

from roslin.errors import InputError
from roslin.model.files import WEIGHT_FILES, shards
from roslin.model.find import HUB_NAME, find_model
from roslin.model.packaged import PACKAGED, packaged_file
from roslin.model.published import PUBLISHED


def local_folder(name: str) -> Path | None:
    """The folder that `find_model` would give if there were no network; None for a model that is not here.

    Raises InputError for a name that can be neither a folder nor a model that Roslin or the hub might have.
    """
    if HUB_NAME.fullmatch(name) and not is_path(name):
        return _cached(name)
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
    """Whether a model's weights are there, every shard of them."""
    return folder.is_file() or any(_is_whole(folder / name) for name in WEIGHT_FILES)


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


def _cached(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None


def _is_whole(path: Path) -> bool:
    if path.suffix != ".json" or not path.is_file():
        return path.is_file()
    try:
        return all(shard.is_file() for shard in shards(path))
    except InputError:
        return False
