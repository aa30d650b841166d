"""A model in a GGUF file, under the names and in the layout of a transformers folder."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from roslin.errors import InputError
from roslin.gguf_file import open_gguf
from roslin.model.gguf_layout import EMBEDDING, HEAD, IGNORED, layout_of
from roslin.model.gguf_tensor import GgufTensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from roslin.gguf_file import GgufEntry, GgufFile
    from roslin.model.gguf_layout import GgufLayout

FAULTS_SHOWN = 20


@dataclass(frozen=True)
class GgufModel:
    """What a config.json would say, and the tensors by transformers' names; none is read before it is asked for."""

    config_values: dict[str, Any]
    tensors: dict[str, GgufTensor]


def read_gguf(path: Path) -> GgufModel:
    """Read what a GGUF file says of its model.

    Raises InputError, naming the file, for one that is none or is damaged, for an architecture that Roslin does not
    run, and, all at once, for tensors that are missing, unknown, cut short, or packed in a way that cannot be undone.
    """
    file = open_gguf(path)
    layout = layout_of(file)
    values = layout.config(file)
    entries = [entry for entry in file.entries if not IGNORED.search(entry.name)]
    found = {entry.name for entry in entries}
    flags = layout.flags(found)
    # With more layers than tensors, some are missing anyway: a damaged number of layers costs no memory.
    names = layout.names(min(values["num_hidden_layers"], len(entries) + 1))
    _raise_faults(file, _name_faults(layout, entries, flags, names))
    tensors = _tensors(file, layout, values, entries)
    rows = {"vocab_size": next(entry.shape[0] for entry in entries if entry.name == EMBEDDING)}
    config = values | flags | rows | {"tie_word_embeddings": HEAD not in found}
    return GgufModel(config, {names[name]: tensor for name, tensor in tensors.items()})


def _name_faults(
    layout: GgufLayout, entries: Sequence[GgufEntry], flags: Mapping[str, bool], names: Mapping[str, str]
) -> list[str]:
    found = Counter(entry.name for entry in entries)
    missing = [f"{name} is missing" for name in names if name not in found and layout.is_needed(name, flags)]
    unknown = [f"{name} is not known" for name in found if name not in names]
    return missing + unknown + [f"{name} is given twice" for name, count in found.items() if count > 1]


def _tensors(
    file: GgufFile, layout: GgufLayout, values: Mapping[str, Any], entries: Sequence[GgufEntry]
) -> dict[str, GgufTensor]:
    heads = values["num_attention_heads"]
    key_heads = values.get("num_key_value_heads", heads)
    sizes = {entry.path: entry.path.stat().st_size for entry in entries}
    tensors, faults = {}, []
    for entry in entries:
        try:
            tensor = GgufTensor.of(entry, layout.order(entry.name, heads, key_heads))
        except InputError as error:
            faults.append(str(error))
            continue
        tensors[entry.name] = tensor
        if tensor.end > sizes[entry.path]:
            faults.append(f"{tensor} ends at byte {tensor.end:,}, and the file is cut short at {sizes[entry.path]:,}")
    _raise_faults(file, faults)
    return tensors


def _raise_faults(file: GgufFile, faults: list[str]) -> None:
    if not faults:
        return
    shown = [f"  {fault}" for fault in faults[:FAULTS_SHOWN]]
    more = [f"  and {len(faults) - FAULTS_SHOWN} more of the kind"] if len(faults) > FAULTS_SHOWN else []
    raise InputError("\n".join([f"The weights in {file.path} cannot be used:", *shown, *more]))
