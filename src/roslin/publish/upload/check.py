"""Whether a folder can be published: a whole model with its card, and nothing that must stay on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson
from safetensors import SafetensorError, safe_open

from roslin.errors import InputError
from roslin.gguf_file import open_gguf
from roslin.model.adapter import is_adapter
from roslin.model.files import WEIGHT_FILES, shards
from roslin.model.local import has_weights
from roslin.publish.upload.card import CARD, card_faults, licence_of, names_no_base
from roslin.publish.upload.files import files_of
from roslin.publish.upload.text import text_faults

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from roslin.publish.upload.files import SentFile

CTRANSLATE2 = "model.bin"
"""The weights of a folder that `roslin export --format ctranslate2` wrote."""
MOST_SHOWN = 60
SPLIT_AFTER_FIRST = "-00001-of-"


@dataclass(frozen=True)
class Upload:
    """A folder that was found fit to be published: what of it is sent, what is left out, and what its card says."""

    folder: Path
    files: Sequence[SentFile]
    left_out: Sequence[str]
    licence: str
    notes: Sequence[str]
    """What a person should know, though it is no fault."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def card(self) -> Path:
        """The model card."""
        return self.folder / CARD


def checked_upload(folder: Path, *, allow_paths: bool = False) -> Upload:
    """Look through a folder before anything of it is sent. Raises InputError with all that is wrong with it.

    `allow_paths` lets paths of machines pass: one in a text can be meant, as that of a container's folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: {'not a folder' if folder.exists() else 'there is no such folder'}.")
    if inner := _model_within(folder):
        raise InputError(_told(folder, [_no_model(inner)]))
    found = files_of(folder)
    faults = [*found.faults, *_model_faults(folder, found.files)]
    names = [file.name for file in found.files]
    faults += card_faults(folder / CARD, names, adapter=is_adapter(folder))
    for file in found.files:
        faults += text_faults(file, paths=not allow_paths)
    if faults:
        raise InputError(_told(folder, faults))
    return Upload(folder, found.files, found.left_out, licence_of(folder / CARD), _notes(folder))


def _model_faults(folder: Path, files: Sequence[SentFile]) -> list[str]:
    ggufs = [file for file in files if file.name.endswith(".gguf")]
    whole = (folder / "config.json").is_file() or is_adapter(folder)
    if not ggufs and not (whole and (has_weights(folder) or (folder / CTRANSLATE2).is_file())):
        return [_no_model(None), *_lost_shards(folder)]
    tensors = [fault for file in files if file.name.endswith(".safetensors") for fault in _damage(file)]
    return [*tensors, *(fault for file in ggufs for fault in _gguf_damage(file))]


def _model_within(folder: Path) -> Path | None:
    """The model in the folder of a run, of which nothing else is published."""
    if has_weights(folder) or (folder / CTRANSLATE2).is_file() or any(folder.glob("*.gguf")):
        return None
    return next((folder / name for name in ("model", "adapter") if has_weights(folder / name)), None)


def _no_model(inner: Path | None) -> str:
    where = f"; one is in {inner}: give that" if inner else ""
    return (
        f"no whole model is in it: neither config.json with {WEIGHT_FILES[0]} (or an index and its shards), nor "
        f"adapter_config.json with the adapter's weights, nor a GGUF file{where}"
    )


def _lost_shards(folder: Path) -> list[str]:
    """Shards that an index names and that are not there."""
    lost = []
    for index in sorted(folder.glob("*.index.json")):
        try:
            lost += [
                f"{shard.name}: missing, which {index.name} names" for shard in shards(index) if not shard.is_file()
            ]
        except InputError as error:
            lost.append(str(error).removesuffix("."))
    return lost


def _damage(file: SentFile) -> list[str]:
    try:
        with safe_open(file.path, framework="numpy"):
            return []
    except (SafetensorError, OSError, ValueError) as error:
        return [f"{file.name}: cut short or damaged ({error}): write it again"]


def _gguf_damage(file: SentFile) -> list[str]:
    if "-of-" in file.path.stem and SPLIT_AFTER_FIRST not in file.path.stem:
        return []  # read with its first part
    try:
        open_gguf(file.path)
    except InputError as error:
        return [f"{file.name}: {str(error).removesuffix('.')}: write it again"]
    return []


def _notes(folder: Path) -> list[str]:
    notes = []
    if names_no_base(folder / CARD):
        notes.append(f"{CARD} names no base_model: right only for a model that was tuned from none that a hub has.")
    if (folder / "config.json").is_file() and _runs_code(folder / "config.json"):
        notes.append("config.json asks for code of this folder to be run (trust_remote_code); the code is sent along.")
    return notes


def _runs_code(config: Path) -> bool:
    """Whether others run Python of this folder when they load it."""
    try:
        values = orjson.loads(config.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and bool(values.keys() & {"auto_map", "custom_pipelines"})


def _told(folder: Path, faults: Sequence[str]) -> str:
    shown = [f"  {fault}" for fault in faults[:MOST_SHOWN]]
    more = [f"  and {len(faults) - MOST_SHOWN} more"] if len(faults) > MOST_SHOWN else []
    return "\n".join([f"{folder} cannot be published as it is, and nothing of it was sent:", *shown, *more])
