"""A decoder written with its matrices in 8 or 4 bits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from roslin.errors import InputError
from roslin.model.quantised import GROUP, Form, quantise
from roslin.model.save import Written, parts_of, save_written
from roslin.model.stored import Slot
from roslin.model.stored_quantised import quantization_config, slots_of, tensors_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from roslin.model.decoder import Decoder
    from roslin.model.save import Part


def save_quantised(
    decoder: Decoder,
    folder: Path,
    form: Form,
    *,
    group: int = GROUP,
    max_shard_bytes: int = 5_000_000_000,
    end_id: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Write `decoder` as `save_decoder` does, its matrices quantised; norms and biases stay as they are.

    Embedding and head, which errors reach without a layer between, are in 8 bits where the layers are in fewer.
    `say` is told of each layer. Raises InputError naming a matrix that cannot be quantised, and MachineError when the
    disk is full.
    """
    outer: Form = "int8" if form == "int4" else form
    written = [
        _written(decoder, part, form if part.parameter.startswith("blocks.") else outer, group, say)
        for part in parts_of(decoder)
    ]
    config = decoder.config.to_hf(decoder.dtype) | {"quantization_config": quantization_config(form, outer, group)}
    save_written(decoder, folder, written, config, max_shard_bytes, end_id)


def _written(decoder: Decoder, part: Part, form: Form, group: int, say: Callable[[str], None]) -> Written:
    if len(part.shape) < 2:
        return Written([Slot(part.name, part.shape, decoder.dtype)], lambda: [part.read()])
    rows, columns = part.shape
    return Written(slots_of(part.name, (rows, columns), form, group), partial(_quantised, part, form, group, say))


def _quantised(part: Part, form: Form, group: int, say: Callable[[str], None]) -> Sequence[Tensor]:
    if part.parameter.endswith(".qkv.weight"):
        say(f"layer {part.parameter.split('.')[1]}")
    try:
        return tensors_of(quantise(part.read(), form, group))
    except InputError as error:
        raise InputError(f"{part.name}: {error}.") from None
