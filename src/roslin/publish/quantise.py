"""A model written in 8 or 4 bits, for answering in less memory and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from roslin.errors import InputError
from roslin.gguf_file import is_gguf
from roslin.model import find_model
from roslin.model.files import config_values, text_source
from roslin.model.load_quantised import load_quantised
from roslin.model.quantised import GROUP, GROUPS
from roslin.model.save_quantised import save_quantised
from roslin.publish.export import check_free, kept_if_whole, machine_for
from roslin.publish.export_source import Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from roslin.model.quantised import Form

KEPT = ("chat_template.jinja", "generation_config.json", "README.md")
"""What a model's folder may hold beside weights and tokenizer that is true of the quantised model too."""


@dataclass(frozen=True)
class Quantised:
    """A finished quantisation; sizes in bytes, of weights alone."""

    folder: Path
    format: Form
    source_bytes: int
    bytes: int


def quantise_model(
    model: str,
    folder: Path,
    form: Form,
    *,
    group: int = GROUP,
    revision: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Quantised:
    """Write a model to `folder` with its matrices in a form; of int4, `group` inputs share a scale.

    The folder appears when it is whole and loads. Raises InputError for a model that is not found, is quantised
    already or is an adapter, and for a folder that holds files; MachineError for memory or disk.
    """
    if group not in GROUPS:
        raise InputError(f"A group of {group} is none that int4 has: {', '.join(map(str, GROUPS))}.")
    check_free(folder)
    source = Source.open(find_model(model, revision))
    _check(source)
    whole = folder.resolve()
    partial = whole.with_name(whole.name + ".partial")
    with machine_for(folder), kept_if_whole(partial, whole):
        say(f"Loading {source.path} …")
        decoder = source.load()
        end = source.tokenizer.end_id
        save_quantised(decoder, partial, form, group=group, end_id=end, say=say)
        source.tokenizer.save(partial)
        for name in KEPT:
            if found := source.beside(name):
                (partial / name).write_bytes(found.read_bytes())
        source.copy_notices(partial)
        load_quantised(partial, dtype=torch.float32)
    size = sum(parameter.numel() * parameter.element_size() for parameter in decoder.parameters())
    return Quantised(folder, form, size, sum(file.stat().st_size for file in folder.glob("*.safetensors")))


def _check(source: Source) -> None:
    if source.is_adapter:
        raise InputError(
            f"{source.path} is an adapter. Make it one model with its base first: roslin export {source.path} MERGED "
            "--format merged; then quantise that."
        )
    if is_gguf(source.path):
        raise InputError(f"{source.path} is a GGUF file, packed already. Give the model in its own numbers.")
    if config_values(text_source(source.path))[0].get("quantization_config") is not None:
        raise InputError(
            f"{source.path} is quantised already, and quantising it again would add a second error. Give the model in "
            "its own numbers."
        )
