"""Adapters on disk, in PEFT's format: an adapter_config.json, and the tensors of a LoRA and of new tokens' rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from roslin.errors import InputError
from roslin.model.adapted import LINEARS, Lora, chosen_modules, merge, train_rows
from roslin.model.families import FAMILIES
from roslin.model.files import text_source
from roslin.model.find import SHIPPED, find_model
from roslin.model.grad_mode import no_grad
from roslin.model.load import load_config, load_decoder
from roslin.model.lora import LoraLinear, Part
from roslin.model.peft_config import CONFIG, PeftConfig, write_peft_config
from roslin.model.stored import Slot, write_header, write_tensor
from roslin.model.stored_adapter import HEAD, PREFIX, ROWS, WEIGHT_FILES, StoredAdapter, outer_module, places_of
from roslin.model.token_rows import RowsEmbedding, RowsHead
from roslin.model.vocabulary import fit_vocabulary, fitting_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from roslin.model.config import ModelConfig
    from roslin.model.decoder import Decoder
    from roslin.model.stored import StoredTensor

    Find = Callable[[str, str | None], Path]
    """Where a model of this name lies, at this revision. Raises InputError if it is not found."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, and not a whole model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path, base: str | None = None, find: Find = find_model) -> Path:
    """Where an adapter's base is: the one it names, or `base`; a name may be relative to here or to the adapter.

    `find` finds it by its name, if it is not beside the adapter. Raises InputError when it cannot be found, or is an
    adapter itself.
    """
    config = PeftConfig.read(folder)
    name, revision = (base, None) if base else (config.base, config.revision)
    if not name:
        raise InputError(f"{folder / CONFIG} names no base_model_name_or_path: say which base the adapter belongs to.")
    found = folder / name if _is_beside(folder, name) else _found_base(folder, name, revision, find)
    if is_adapter(found):
        raise InputError(f"The base of {folder} is an adapter itself, {found}: merge that into its own base first.")
    return found


def _is_beside(folder: Path, name: str) -> bool:
    try:
        return name != SHIPPED and not Path(name).expanduser().exists() and (folder / name).is_dir()
    except (OSError, RuntimeError):  # a name too long for a file system; the home of a person who has none here
        return False


def _found_base(folder: Path, name: str, revision: str | None, find: Find) -> Path:
    try:
        return find(name, revision)
    except InputError as error:
        raise InputError(f"The adapter in {folder} needs its base. {error}") from None


def text_source_of(folder: Path, base: str | None = None) -> Path:
    """Where the tokenizer and the chat template of an adapter are: beside it if it has any, else its base's."""
    return folder if (folder / "tokenizer.json").is_file() else text_source(base_of(folder, base))


def load_adapted_config(folder: Path, base: str | None = None) -> ModelConfig:
    """The configuration of a base with the adapter in `folder` in it."""
    config = load_config(base_of(folder, base))
    rows_needed = StoredAdapter.read(folder, config).rows_needed
    return replace(config, vocab_rows=fitting_rows(config.vocab_rows, rows_needed))


@no_grad
def load_adapted(
    folder: Path,
    *,
    base: str | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    config: ModelConfig | None = None,
    merged: bool = True,
) -> Decoder:
    """The decoder that an adapter and its base make, the adapter merged into the weights or standing beside them.

    `base` is used instead of the one that the adapter names; `dtype` None keeps the base's own; `config` None is what
    `load_adapted_config` gives. Raises InputError naming every key of adapter_config.json and every tensor that is
    wrong or not supported, before weights are loaded.
    """
    found = base_of(folder, base)
    plain = load_config(found)
    stored = StoredAdapter.read(folder, plain)
    asked = plain if config is None else replace(config, vocab_rows=plain.vocab_rows)
    decoder = load_decoder(found, dtype=dtype, device=device, config=asked)
    if stored.rows_needed > decoder.config.vocab_rows:
        fit_vocabulary(decoder, stored.rows_needed, stored.ids["embedding"], "keep")
    _put_whole(decoder, stored.whole)
    decoder.requires_grad_(False)
    _put_rows(decoder, stored)
    _put_pairs(decoder, stored)
    decoder.eval()
    if merged:
        merge(decoder)
    return decoder


def _put_whole(decoder: Decoder, whole: Mapping[str, StoredTensor]) -> None:
    """Replace rows of embedding and head by those stored; a tied head that is stored as another is tied no more."""
    was_tied = bool(whole) and decoder.config.tied_head
    if was_tied:
        decoder.head.weight = nn.Parameter(decoder.head.weight.clone())
    for ours, tensor in whole.items():
        decoder.get_parameter(ours)[: tensor.shape[0]] = tensor.read().to(decoder.device)
    if was_tied:
        is_tied = torch.equal(decoder.head.weight, decoder.embedding.weight)
        decoder.config = replace(decoder.config, tied_head=is_tied)
        decoder.tie()


def _put_rows(decoder: Decoder, stored: StoredAdapter) -> None:
    train_rows(decoder, stored.ids["embedding"], stored.ids["head"])
    if isinstance(decoder.embedding, RowsEmbedding):
        decoder.embedding.rows_KD.copy_(stored.tensors["embedding", "rows"].read())
    if isinstance(decoder.head, RowsHead) and not decoder.config.tied_head:
        decoder.head.rows_KD.copy_(stored.tensors["head", "rows"].read())


def _put_pairs(decoder: Decoder, stored: StoredAdapter) -> None:
    layers: dict[tuple[int, str], list[Part]] = {}
    for place in places_of(decoder.config):
        if place.module in stored.adapted:
            rank, scaling = stored.config.rank_of(place.module), stored.config.scaling_of(place.module)
            part = Part(place.module, place.start, place.stop, rank, scaling)
            layers.setdefault((place.layer, place.ours), []).append(part)
    for (layer, ours), parts in layers.items():
        adapted = LoraLinear(getattr(decoder.blocks[layer], ours), parts, stored.config.dropout)
        for part, A_RI, B_OR in adapted.pieces():
            A_RI.copy_(stored.tensors[part.module, "A"].read())
            B_OR.copy_(_from_file(decoder.config, ours, stored.tensors[part.module, "B"].read()))
        setattr(decoder.blocks[layer], ours, adapted)


def _is_per_head(config: ModelConfig, ours: str) -> bool:
    return FAMILIES[config.family].block[f"{ours}.weight"].per_head


def _from_file(config: ModelConfig, ours: str, B_OR: Tensor) -> Tensor:
    """Rows in the decoder's order: GPT-NeoX's files have a head's query, key and value beside each other."""
    if not _is_per_head(config, ours):
        return B_OR
    return B_OR.reshape(config.heads, 3, config.head_dim, -1).transpose(0, 1).reshape(B_OR.shape)


def _to_file(config: ModelConfig, ours: str, B_OR: Tensor) -> Tensor:
    if not _is_per_head(config, ours):
        return B_OR
    return B_OR.reshape(3, config.heads, config.head_dim, -1).transpose(0, 1).reshape(B_OR.shape)


@no_grad
def save_adapter(
    decoder: Decoder, folder: Path, lora: Lora, *, base: str, revision: str | None, base_rows: int, dtype: torch.dtype
) -> None:
    """Write the adapter that `adapt` put into a decoder as PEFT's files, into `folder`, which is there.

    `base` names what it was tuned on, a hub name or a path. `base_rows` is how many rows embedding and head of the base
    must have for it. Everything is fp32, but for a head with biases: PEFT has no rows of its own for one, so it is
    stored whole, as `dtype`.
    """
    family, config = FAMILIES[decoder.config.family], decoder.config
    tensors = dict(_pairs(decoder))
    whole, rows = _stored_outer(decoder, outer_module(family, "embedding"))
    tensors |= {name: layer[:base_rows].to(dtype) for name, layer in whole.items()}
    tensors |= {f"{module}.{ROWS}": layer.rows_KD for module, layer in rows.items()}
    _write_tensors(folder / WEIGHT_FILES[0], tensors)
    write_peft_config(
        folder,
        replace(lora, modules=chosen_modules(config, lora.modules)),
        base=base,
        revision=revision,
        whole=sorted({name.split(".")[-2] for name in whole}),
        token_ids={module.rpartition(".")[2]: layer.ids_K.tolist() for module, layer in rows.items()},
    )


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    slots = [Slot(PREFIX + name, tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()]
    with path.open("wb") as file:
        write_header(file, slots)
        for tensor in tensors.values():
            write_tensor(file, tensor)


def _pairs(decoder: Decoder) -> Iterator[tuple[str, Tensor]]:
    for block in decoder.blocks:
        for ours in LINEARS:
            layer = getattr(block, ours)
            for part, A_RI, B_OR in layer.pieces() if isinstance(layer, LoraLinear) else ():
                yield f"{part.module}.lora_A.weight", A_RI
                yield f"{part.module}.lora_B.weight", _to_file(decoder.config, ours, B_OR)


def _stored_outer(decoder: Decoder, embedding: str) -> tuple[dict[str, Tensor], dict[str, RowsEmbedding | RowsHead]]:
    """What of embedding and head is stored whole, by tensor, and what by rows, by module.

    PEFT's head with rows of its own leaves out the bias, so a head with one is stored whole; the embedding that such a
    head is tied to likewise, for PEFT would tie the two again.
    """
    inner, head, tied = decoder.embedding, decoder.head, decoder.config.tied_head
    if not isinstance(inner, RowsEmbedding) or not isinstance(head, RowsHead):
        return {}, {}
    if head.bias is None:
        return {}, {embedding: inner} | ({} if tied else {HEAD: head})
    whole = {f"{HEAD}.weight": head.weight, f"{HEAD}.bias": head.bias}
    return (whole | {f"{embedding}.weight": inner.weight}, {}) if tied else (whole, {embedding: inner})
