"""Weights in: a transformers-layout folder to a decoder, with about one copy of the weights in memory."""

from __future__ import annotations

from functools import reduce
from itertools import filterfalse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import torch
from torch import Tensor, nn

from roslin.errors import InputError, MachineError
from roslin.model.config import ModelConfig
from roslin.model.decoder import Decoder
from roslin.model.families import FAMILIES
from roslin.model.stored import StoredTensor, stored_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from roslin.model.family import Family, Source

# In the order in which transformers looks for them.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
FAULTS_SHOWN = 20
NO_MEMORY = {"cuda": torch.OutOfMemoryError, "cpu": RuntimeError}
"""What torch raises where there is no memory for a tensor."""


def load_config(folder: Path) -> ModelConfig:
    """The configuration in a model folder. Raises InputError if it is missing or not one that Roslin runs."""
    return ModelConfig.from_hf(_json_object(Path(folder) / "config.json"), str(Path(folder) / "config.json"))


def load_decoder(
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    config: ModelConfig | None = None,
) -> Decoder:
    """The decoder in a model folder: safetensors or .bin, one file or shards.

    `dtype` None keeps the files' own (the widest, should they mix); `config` None is the folder's own.
    Raises InputError naming every shard that is missing or damaged, and every tensor that is missing, unknown, of the
    wrong shape or not made of plain numbers; MachineError when the device has no memory for the weights.
    """
    folder = Path(folder)
    config = config or load_config(folder)
    with torch.device("meta"):
        decoder = Decoder(config)
    family = FAMILIES[config.family]
    stored = _checked(folder, decoder, family, _all_stored(folder, family))
    dtype = dtype or reduce(torch.promote_types, (tensor.dtype for tensor in stored.values()))
    for name, parameter in list(decoder.named_parameters()):
        source = family.source(name)
        place = _empty(parameter.shape, dtype, torch.device(device), config)
        _fill(place, config, source, [stored[theirs] for theirs in source.names])
        _assign(decoder, name, place)
    decoder.tie()
    return decoder


def _json_object(path: Path) -> dict[str, Any]:
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


def _weight_paths(folder: Path) -> list[Path]:
    for name in WEIGHT_FILES:
        path = folder / name
        if path.is_file() or path.is_symlink():
            return _shards(path) if name.endswith(".json") else [path]
    raise InputError(f"{folder} holds no weights: none of {', '.join(WEIGHT_FILES)} is there.")


def _shards(index: Path) -> list[Path]:
    weight_map = _json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{index} has no weight_map that says which file holds which tensor.")
    names = sorted({str(name) for name in weight_map.values()})
    if outside := [name for name in names if Path(name).name != name]:
        raise InputError(f"{index} points outside its folder: {', '.join(outside)}.")
    return [index.parent / name for name in names]


def _all_stored(folder: Path, family: Family) -> dict[str, StoredTensor]:
    """Every tensor of the folder's weight files by its canonical name, but for what the family ignores."""
    stored: dict[str, StoredTensor] = {}
    faults = []
    for path in _weight_paths(folder):
        try:
            tensors = stored_tensors(path)
        except FileNotFoundError:
            dangling = path.is_symlink()
            faults.append(f"{path.name} is {'a link to nothing' if dangling else 'missing, which the index names'}")
        except InputError as error:
            faults.append(str(error))
        except (OSError, ValueError) as error:
            faults.append(f"{path.name} cannot be read: {error}")
        else:
            for name in filterfalse(family.ignored.search, tensors):
                first = stored.setdefault(family.canonical(name), tensors[name])
                if first is not tensors[name]:
                    faults.append(f"{tensors[name]} is given twice: {first} is the same tensor")
    _raise_faults(folder, faults)
    return stored


def _checked(
    folder: Path, decoder: Decoder, family: Family, stored: Mapping[str, StoredTensor]
) -> Mapping[str, StoredTensor]:
    """The tensors that the decoder takes, each there and of its shape."""
    shapes = dict(_expected_shapes(decoder, family))
    spare = set(family.source("head.weight").names) if decoder.config.tied_head else set()
    faults = [f"{name} is missing" for name in shapes if name not in stored]
    faults += [f"{tensor} is not known" for name, tensor in stored.items() if name not in {*shapes, *spare}]
    for name in shapes.keys() & stored.keys():
        tensor = stored[name]
        if tensor.shape != shapes[name]:
            found, wanted = list(tensor.shape), list(shapes[name])
            faults.append(f"{tensor} has the shape {found}; config.json makes it {wanted}")
        elif not tensor.dtype.is_floating_point:
            faults.append(f"{tensor} holds {tensor.dtype}; Roslin loads floating-point weights")
    _raise_faults(folder, faults)
    return {name: stored[name] for name in shapes}


def _expected_shapes(decoder: Decoder, family: Family) -> Iterable[tuple[str, tuple[int, ...]]]:
    for name, parameter in decoder.named_parameters():
        source = family.source(name)
        rows, *rest = parameter.shape
        for theirs, count in zip(source.names, source.rows(decoder.config, rows), strict=True):
            yield theirs, (count, *rest)


def _raise_faults(folder: Path, faults: list[str]) -> None:
    if not faults:
        return
    shown = [f"  {fault}" for fault in sorted(faults)[:FAULTS_SHOWN]]
    more = [f"  and {len(faults) - FAULTS_SHOWN} more of the kind"] if len(faults) > FAULTS_SHOWN else []
    raise InputError("\n".join([f"The weights in {folder} do not fit:", *shown, *more]))


def _empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device, config: ModelConfig) -> Tensor:
    try:
        return torch.empty(shape, dtype=dtype, device=device)
    except NO_MEMORY[device.type] as error:
        need = config.parameter_count * dtype.itemsize / 2**30
        raise MachineError(
            f"No memory on {device} for the model's weights, {need:,.2f} GiB as {str(dtype).removeprefix('torch.')}. "
            "Free some, or take a narrower dtype, another device or a smaller model."
        ) from error


def _fill(place: Tensor, config: ModelConfig, source: Source, stored: list[StoredTensor]) -> None:
    if source.per_head:
        rest = place.shape[1:]
        by_head = stored[0].read().reshape(config.heads, 3, config.head_dim, *rest)
        place.view(3, config.heads, config.head_dim, *rest).copy_(by_head.transpose(0, 1))
        return
    for part, tensor in zip(place.split_with_sizes(source.rows(config, len(place))), stored, strict=True):
        tensor.read_into(part)


def _assign(decoder: Decoder, name: str, tensor: Tensor) -> None:
    path, _, attribute = name.rpartition(".")
    setattr(decoder.get_submodule(path), attribute, nn.Parameter(tensor))
