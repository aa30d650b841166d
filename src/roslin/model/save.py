"""Weights out: a decoder to the folder layout that transformers, old and new, loads."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from roslin.errors import MachineError
from roslin.model.families import FAMILIES
from roslin.model.stored import Slot, write_header, write_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import torch
    from torch import Tensor

    from roslin.model.decoder import Decoder


@dataclass(frozen=True)
class Part:
    """A parameter, or some of its rows, as the family's files have it."""

    parameter: str
    name: str
    shape: tuple[int, ...]
    read: Callable[[], Tensor]
    """The numbers in the file's order."""


@dataclass(frozen=True)
class Written:
    """Tensors that go into a file together, and their numbers, which are made when they are written."""

    slots: Sequence[Slot]
    make: Callable[[], Sequence[Tensor]]

    @property
    def size(self) -> int:
        """Their bytes."""
        return sum(slot.size for slot in self.slots)


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
    dtype = dtype or decoder.dtype
    written = [_plain(part, dtype) for part in parts_of(decoder)]
    save_written(decoder, Path(folder), written, decoder.config.to_hf(dtype), max_shard_bytes, end_id)


def save_written(
    decoder: Decoder,
    folder: Path,
    written: Sequence[Written],
    config: Mapping[str, Any],
    max_shard_bytes: int,
    end_id: int | None,
) -> None:
    """Write tensors and the two files of settings. Raises MachineError when the disk is full."""
    try:
        _write_weights(folder, _shards(written, max_shard_bytes))
        _write_json(folder / "config.json", config)
        _write_json(folder / "generation_config.json", _generation(decoder, end_id))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MachineError(f"The disk is full: the model could not be written to {folder}.") from None
        raise


def parts_of(decoder: Decoder) -> Iterator[Part]:
    """All of a decoder's parameters as its family's files have them, in order."""
    family = FAMILIES[decoder.config.family]
    for name, parameter in decoder.named_parameters():
        source = family.source(name)
        rows, *rest = parameter.shape
        counts = source.rows(decoder.config, rows)
        for index, theirs in enumerate(source.names):
            read = partial(_in_file_order, decoder, parameter, source.per_head, sum(counts[:index]), counts[index])
            yield Part(name, theirs, (counts[index], *rest), read)


def _plain(part: Part, dtype: torch.dtype) -> Written:
    return Written([Slot(part.name, part.shape, dtype)], lambda: [part.read().to(dtype)])


def _shards(written: Sequence[Written], max_bytes: int) -> list[list[Written]]:
    """All of them in order, in as few files as the limit gives; one above the limit has a file of its own."""
    shards: list[list[Written]] = [[]]
    size = 0
    for each in written:
        if shards[-1] and size + each.size > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(each)
        size += each.size
    return shards


def _write_weights(folder: Path, shards: list[list[Written]]) -> None:
    count = len(shards)
    names = ["model.safetensors"]
    if count > 1:
        names = [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    for name, shard in zip(names, shards, strict=True):
        with _new_file(folder / name) as file:
            write_header(file, [slot for each in shard for slot in each.slots])
            for each in shard:
                for tensor in each.make():
                    write_tensor(file, tensor)
    if count > 1:
        placed = [(name, each) for name, shard in zip(names, shards, strict=True) for each in shard]
        slots = [(slot, name) for name, each in placed for slot in each.slots]
        index = {
            "metadata": {"total_size": sum(slot.size for slot, _ in slots)},
            "weight_map": {slot.name: name for slot, name in slots},
        }
        _write_json(folder / "model.safetensors.index.json", index)


def _new_file(path: Path) -> BinaryIO:
    """A file in place of one that may be the memory of the very decoder to save, which so keeps its numbers."""
    if path.is_file():
        path.unlink()
    return path.open("wb")


def _in_file_order(decoder: Decoder, parameter: Tensor, per_head: bool, start: int, count: int) -> Tensor:
    tensor = parameter.detach()
    if per_head:
        tensor = tensor.view(3, decoder.config.heads, -1, *tensor.shape[1:]).transpose(0, 1).flatten(0, 2)
    return tensor[start : start + count]


def _generation(decoder: Decoder, end_id: int | None) -> dict[str, Any]:
    config = decoder.config
    return {
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_id if end_id is None else end_id,
        "pad_token_id": config.eos_id,
    }


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
