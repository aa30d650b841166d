"""The files of a model: its configuration and its weights, in a folder, in one file, or in GGUF."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from roslin.errors import InputError
from roslin.gguf_file import is_gguf
from roslin.model.stored import stored_tensors
from roslin.model.stored_nf4 import with_nf4
from roslin.model.stored_quantised import METHOD, split_name, with_quantised

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from roslin.model.family import Family
    from roslin.model.gguf_model import GgufModel
    from roslin.model.stored import Stored, StoredTensor

# In the order in which transformers looks for them.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
FAULTS_SHOWN = 20


def text_source(path: Path) -> Path:
    """Where a model's tokenizer and chat template are: its folder, that of its weights file, or its GGUF file."""
    return path if path.is_dir() or is_gguf(path) else path.parent


def config_values(path: Path) -> tuple[dict[str, Any], str]:
    """What the config.json of a model says, or would say, and where that was read.

    Raises InputError for one that is missing or is none, and for weights quantised in a way that Roslin does not read.
    """
    if is_gguf(path):
        return _read_gguf(path).config_values, str(path)
    source = text_source(path) / "config.json"
    values = json_object(source)
    if values.get("model_type") is None:
        raise InputError(
            f"{source} names no model_type, as transformers' config.json of a model does. Copy the file again from the "
            "model's source."
        )
    _check_quantization(values.get("quantization_config"), source)
    return values, str(source)


def is_quantised(path: Path) -> bool:
    """Whether `roslin quantize` wrote this model. Raises InputError as `config_values` does."""
    if is_gguf(path):
        return False
    how = config_values(path)[0].get("quantization_config")
    return isinstance(how, dict) and how.get("quant_method") == METHOD


def stored_weights(path: Path, family: Family) -> dict[str, Stored]:
    """Every tensor of a model's weights by its canonical name, but for what the family ignores.

    Nothing is read but headers. Raises InputError, with all that is wrong with any file at once. A file must be as long
    as its header says; its content is not hashed, which would take several times as long as loading it
    (`hf cache verify` does that for a model of the hub).
    """
    if is_gguf(path):
        return dict(_read_gguf(path).tensors)
    faults: list[str] = []
    stored: dict[str, Stored] = {}
    for tensor in _tensors(path, faults):
        if family.ignored.search(tensor.name):
            continue
        matrix, piece = split_name(tensor.name)
        first = stored.setdefault(family.canonical(matrix) + piece, tensor)
        if first is not tensor:
            faults.append(f"{tensor} is given twice: {first} is the same tensor")
    stored = with_quantised(with_nf4(stored, faults), faults)
    raise_faults(path, faults)
    return stored


@contextmanager
def unchanged(paths: Collection[Path]) -> Iterator[None]:
    """Raises InputError for a file that is replaced, written to or removed within it: what was read is a mixture.

    One that is gone at the end was there for as long as it was read.
    """
    before = {path: _stamp(path) for path in paths}
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{error.filename} was removed while it was being loaded. Load the model again.") from None
    if changed := [str(path) for path, stamp in before.items() if _stamp(path) not in (stamp, None)]:
        raise InputError(f"{', '.join(changed)} was changed while it was being loaded. Load the model again.")


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What tells a file from another, and from itself when it was written to; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def shards(index: Path) -> list[Path]:
    """The weight files that an index lists. Raises InputError for one that is damaged or points elsewhere."""
    weight_map = json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{index} has no weight_map that says which file holds which tensor.")
    names = sorted({str(name) for name in weight_map.values()})
    if outside := [name for name in names if Path(name).name != name]:
        raise InputError(f"{index} points outside its folder: {', '.join(outside)}.")
    return [index.parent / name for name in names]


def raise_faults(path: Path, faults: list[str]) -> None:
    """Raise InputError if there is anything wrong with the weights at `path`."""
    if not faults:
        return
    shown = [f"  {fault}" for fault in sorted(faults)[:FAULTS_SHOWN]]
    more = [f"  and {len(faults) - FAULTS_SHOWN} more of the kind"] if len(faults) > FAULTS_SHOWN else []
    raise InputError("\n".join([f"The weights in {path} do not fit:", *shown, *more]))


def _read_gguf(path: Path) -> GgufModel:
    from roslin.model.gguf_model import read_gguf  # and the package gguf, which most models do without

    return read_gguf(path)


def _check_quantization(how: Any, source: Path) -> None:
    """Roslin's own and nf4 of bitsandbytes are read; all others keep their numbers in layouts of their own."""
    if how is None:
        return
    method = how.get("quant_method", "bitsandbytes") if isinstance(how, dict) else repr(how)
    if method == METHOD:
        return
    kind = how.get("bnb_4bit_quant_type") if method == "bitsandbytes" and how.get("load_in_4bit") else None
    if kind == "nf4":
        return
    if method == "bitsandbytes":
        method = f"bitsandbytes' {kind}" if kind else "bitsandbytes' 8 bits"
    raise InputError(
        f"{source}: the weights are quantised by {method}, which Roslin does not read. Get the model unquantised, in "
        "bitsandbytes' 4-bit nf4, or as GGUF."
    )


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises InputError for a file that is missing, cannot be read, or holds none."""
    try:
        values = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} is missing: a model folder holds config.json, weights and a tokenizer.") from None
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} does not hold a JSON object.")
    return values


def weight_paths(path: Path) -> list[Path]:
    """The files that a model's weights are read from, of all that may lie in its folder. Raises InputError for none."""
    if not path.is_dir():
        return [path]
    for name in WEIGHT_FILES:
        found = path / name
        if found.is_file() or found.is_symlink():
            return shards(found) if name.endswith(".json") else [found]
    raise InputError(f"{path} holds no weights: none of {', '.join(WEIGHT_FILES)} is there.")


def _tensors(path: Path, faults: list[str]) -> Iterator[StoredTensor]:
    """The tensors of a model's weight files; what is wrong with any file goes to `faults`."""
    for file in weight_paths(path):
        try:
            tensors = stored_tensors(file)
        except FileNotFoundError:
            dangling = file.is_symlink()
            faults.append(f"{file.name} is {'a link to nothing' if dangling else 'missing, which the index names'}")
        except InputError as error:
            faults.append(str(error))
        except (OSError, ValueError) as error:
            faults.append(f"{file.name} cannot be read: {error}")
        else:
            yield from tensors.values()
