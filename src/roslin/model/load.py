"""Weights in: a model's files to a decoder, each byte touched once.

On a CPU, a parameter that lies in a file as the decoder wants it stays there: its memory is the file's own pages.
What must be stacked, rearranged or converted is copied into its place, and so is everything for a GPU.
"""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from roslin.errors import MachineError, out_of_memory
from roslin.model.config import ModelConfig
from roslin.model.decoder import Decoder
from roslin.model.families import FAMILIES
from roslin.model.files import config_values, raise_faults, stored_weights, unchanged
from roslin.model.fp8 import FP8
from roslin.model.grad_mode import no_grad
from roslin.model.pages import Piece, reading_ahead
from roslin.model.stored import StoredTensor, put, read_pieces
from roslin.model.stored_quantised import several_forms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from roslin.model.family import Family, Source
    from roslin.model.stored import Stored

COPIES_AT_ONCE = 4
"""How many parameters go to a GPU at a time: while one crosses, the next ones are read."""


def load_config(path: Path) -> ModelConfig:
    """The configuration of a model: a folder, a weights file with config.json beside it, or a GGUF file.

    Raises InputError if it is missing or not one that Roslin runs, be it for how the weights are quantised.
    """
    return ModelConfig.from_hf(*config_values(Path(path)))


@no_grad
def load_decoder(
    path: Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    config: ModelConfig | None = None,
) -> Decoder:
    """The decoder of a model: a folder with safetensors or .bin, one file or shards; one such file; or a GGUF file.

    `dtype` None keeps the files' own (the widest, should they mix; packed numbers become float32); `config` None is
    the model's own. 4-bit weights in bitsandbytes' nf4 become plain numbers.
    On a CPU part of the decoder's memory is that of the files: they may be removed or replaced while it lives, but not
    be written to. Raises InputError naming every shard that is missing or damaged, and every tensor that is missing,
    unknown, of the wrong shape or not made of plain numbers, and for files that change meanwhile; MachineError when the
    device has no memory for them.
    """
    path, device = Path(path), torch.device(device)
    config = config or load_config(path)
    with torch.device("meta"):
        decoder = Decoder(config)
    parts = checked_parts(path, decoder)
    everything = [part for its in parts.values() for part in its]
    dtype = dtype or reduce(torch.promote_types, (part.dtype for part in everything))
    place = partial(placed, decoder, parts, dtype, device)
    paths = [part.path for part in everything]
    with unchanged(set(paths)), reading_ahead(paths), room_for(config, dtype, device):
        for name, tensor in _each(place, list(parts), device):
            assign(decoder, name, tensor)
    decoder.tie()
    return decoder


def checked_parts(path: Path, decoder: Decoder) -> dict[str, list[Stored]]:
    """What each of the decoder's parameters is made of, each part there and of its shape."""
    family = FAMILIES[decoder.config.family]
    stored = stored_weights(path, family)
    shapes = dict(_expected_shapes(decoder, family))
    if not any(name in stored for name in shapes if name.startswith(family.body)):
        raise_faults(path, [_of_another_family(decoder, stored)])
    raise_faults(path, _misfits(decoder, family, stored, shapes))
    names = {name: family.source(name).names for name, _ in decoder.named_parameters()}
    parts = {name: [stored[theirs] for theirs in its] for name, its in names.items()}
    matrices = [name for name, parameter in decoder.blocks.named_parameters() if parameter.dim() > 1]
    raise_faults(path, several_forms([part for name in matrices for part in parts[f"blocks.{name}"]]))
    return parts


def _expected_shapes(decoder: Decoder, family: Family) -> Iterable[tuple[str, tuple[int, ...]]]:
    for name, parameter in decoder.named_parameters():
        source = family.source(name)
        rows, *rest = parameter.shape
        for theirs, count in zip(source.names, source.rows(decoder.config, rows), strict=True):
            yield theirs, (count, *rest)


def _misfits(
    decoder: Decoder, family: Family, stored: Mapping[str, Stored], shapes: Mapping[str, tuple[int, ...]]
) -> list[str]:
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
        elif tensor.dtype == FP8:
            faults.append(f"{tensor} holds fp8 without {name}.scale, its scales")
    return faults


def _of_another_family(decoder: Decoder, stored: Mapping[str, Stored]) -> str:
    names = [tensor.name for tensor in stored.values()]
    alike = [kind for kind, family in FAMILIES.items() if any(name.startswith(family.body) for name in names)]
    found = f"they look like {' or '.join(alike)}'s" if alike else next(map(str, stored.values()), "there is nothing")
    return (
        f"no tensor of a {decoder.config.family} model is among them; {found}: config.json or the weights are another "
        "model's"
    )


def _each(place: Callable[[str], Tensor], names: Sequence[str], device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """Every parameter, placed. Copies between places on a CPU keep all its cores busy, one at a time."""
    if device.type == "cpu":
        yield from zip(names, map(place, names), strict=True)
        return
    with ThreadPoolExecutor(COPIES_AT_ONCE) as pool:
        yield from zip(names, pool.map(place, names), strict=True)


def placed(
    decoder: Decoder, parts: Mapping[str, Sequence[Stored]], dtype: torch.dtype, device: torch.device, name: str
) -> Tensor:
    """One parameter: in its files' own pages if that will do, else copied."""
    source, shape = FAMILIES[decoder.config.family].source(name), decoder.get_parameter(name).shape
    pieces = _pieces(decoder.config, source, parts[name], dtype) if device.type == "cpu" else []
    found = read_pieces(pieces, dtype, shape) if pieces else None
    if found is not None:
        return found
    place = torch.empty(shape, dtype=dtype, device=device)
    _fill(place, decoder.config, source, parts[name])
    return place


def _pieces(config: ModelConfig, source: Source, parts: Sequence[Stored], dtype: torch.dtype) -> list[Piece]:
    """Where the parameter's numbers lie, in order; nothing if it is stored in another form."""
    plain = [part for part in parts if isinstance(part, StoredTensor) and part.is_contiguous and part.dtype == dtype]
    if len(plain) < len(parts):
        return []
    pieces = [part.piece() for part in plain]
    if not source.per_head:
        return pieces
    [(path, start, whole)] = pieces
    size = whole // (3 * config.heads)
    return [Piece(path, start + (3 * head + kind) * size, size) for kind in range(3) for head in range(config.heads)]


def _fill(place: Tensor, config: ModelConfig, source: Source, parts: Sequence[Stored]) -> None:
    if source.per_head:
        rest = place.shape[1:]
        by_head = parts[0].read().reshape(config.heads, 3, config.head_dim, *rest)
        put(by_head.transpose(0, 1), place.view(3, config.heads, config.head_dim, *rest))
        return
    for rows, part in zip(place.split_with_sizes(source.rows(config, len(place))), parts, strict=True):
        part.read_into(rows)


def assign(decoder: Decoder, name: str, tensor: Tensor) -> None:
    """Make a tensor the decoder's parameter of this name."""
    path, _, attribute = name.rpartition(".")
    setattr(decoder.get_submodule(path), attribute, nn.Parameter(tensor))


@contextmanager
def room_for(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Tells memory that runs out as what it is: MachineError with what the weights need."""
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if not out_of_memory(error) and getattr(error, "errno", None) != errno.ENOMEM:
            raise
        need = config.parameter_count * dtype.itemsize / 2**30
        raise MachineError(
            f"No memory on {device} for the model's weights, {need:,.2f} GiB as {str(dtype).removeprefix('torch.')}. "
            "Free some, or take a narrower dtype, another device or a smaller model."
        ) from error
