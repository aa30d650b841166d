"""Weights out: a decoder to the folder layout that transformers, old and new, loads."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from roslin.errors import MachineError
from roslin.model.families import FAMILIES
from roslin.model.stored import Slot, write_header, write_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch
    from torch import Tensor

    from roslin.model.decoder import Decoder


@dataclass(frozen=True)
class _Part:
    """A parameter, or some of its rows, and the slot that it fills in a file."""

    slot: Slot
    parameter: Tensor
    start: int
    per_head: bool


def save_decoder(
    decoder: Decoder,
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = 5_000_000_000,
    end_id: int | None = None,
) -> None:
    """Write weights, config.json and generation_config.json into `folder`, which the caller makes and names.

    The weights are safetensors, in several files with an index where they pass `max_shard_bytes`, as `dtype` or as
    they are. `end_id` is the token that ends an answer; None is the configuration's own end. One tensor at a time is
    in memory beside the decoder. Raises MachineError when the disk is full.
    """
    folder = Path(folder)
    dtype = dtype or decoder.dtype
    try:
        _write_weights(decoder, folder, _shards(list(_parts(decoder, dtype)), max_shard_bytes))
        _write_json(folder / "config.json", decoder.config.to_hf(dtype))
        _write_json(folder / "generation_config.json", _generation(decoder, end_id))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MachineError(f"The disk is full: the model could not be written to {folder}.") from None
        raise


def _parts(decoder: Decoder, dtype: torch.dtype) -> Iterator[_Part]:
    family = FAMILIES[decoder.config.family]
    for name, parameter in decoder.named_parameters():
        source = family.source(name)
        rows, *rest = parameter.shape
        counts = source.rows(decoder.config, rows)
        for index, theirs in enumerate(source.names):
            slot = Slot(theirs, (counts[index], *rest), dtype)
            yield _Part(slot, parameter, sum(counts[:index]), source.per_head)


def _shards(parts: Sequence[_Part], max_bytes: int) -> list[list[_Part]]:
    """Parts in order, in as few files as the limit gives; a part above the limit has a file of its own."""
    shards: list[list[_Part]] = [[]]
    size = 0
    for part in parts:
        if shards[-1] and size + part.slot.size > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(part)
        size += part.slot.size
    return shards


def _write_weights(decoder: Decoder, folder: Path, shards: list[list[_Part]]) -> None:
    count = len(shards)
    names = ["model.safetensors"]
    if count > 1:
        names = [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    for name, parts in zip(names, shards, strict=True):
        with _new_file(folder / name) as file:
            write_header(file, [part.slot for part in parts])
            for part in parts:
                write_tensor(file, _as_stored(decoder, part))
    if count > 1:
        weight_map = {part.slot.name: name for name, parts in zip(names, shards, strict=True) for part in parts}
        total = sum(part.slot.size for parts in shards for part in parts)
        _write_json(
            folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map}
        )


def _new_file(path: Path) -> BinaryIO:
    """A file in place of one that may be the memory of the very decoder to save, which so keeps its numbers."""
    if path.is_file():
        path.unlink()
    return path.open("wb")


def _as_stored(decoder: Decoder, part: _Part) -> Tensor:
    tensor = part.parameter.detach()
    if part.per_head:
        tensor = tensor.view(3, decoder.config.heads, -1, *tensor.shape[1:]).transpose(0, 1).flatten(0, 2)
    return tensor[part.start : part.start + part.slot.shape[0]].to(part.slot.dtype)


def _generation(decoder: Decoder, end_id: int | None) -> dict[str, Any]:
    config = decoder.config
    return {
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_id if end_id is None else end_id,
        "pad_token_id": config.eos_id,
    }


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
