"""What is known of a model without loading it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from roslin.errors import InputError
from roslin.model.adapter import base_of, is_adapter, load_adapted_config
from roslin.model.families import FAMILIES
from roslin.model.find import MODELSCOPE_NAME, SHIPPED
from roslin.model.load import load_config
from roslin.model.local import has_weights, is_path, licence_in, local_folder
from roslin.model.published import PUBLISHED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from roslin.model.config import ModelConfig
    from roslin.model.published import Published

KNOWN = (SHIPPED, *PUBLISHED)
"""The names of the models that can be described wherever they are."""

Presence = Literal["yes", "partly", "no"]


@dataclass(frozen=True)
class Description:
    """A model that lies on this machine, or is published elsewhere."""

    name: str
    config: ModelConfig
    licence: str | None
    """As the hub spells it, if it is known."""
    folder: Path | None
    """Where it lies on this machine."""
    tokens: int | None = None
    """Of its tokenizer, if it is a published model."""
    note: str = ""
    base: Path | None = None
    """Where its base lies, if it is an adapter."""

    @property
    def architecture(self) -> str:
        """The name of its class in transformers."""
        return FAMILIES[self.config.family].architecture

    @property
    def here(self) -> Presence:
        """Whether it can be loaded without a network: `partly` where weights are missing."""
        if self.folder is None:
            return "no"
        return "yes" if all(has_weights(place) for place in (self.folder, self.base) if place) else "partly"


def describe(names: Sequence[str]) -> list[Description]:
    """What is known of each model: folders, hub names and `KNOWN` ones.

    The network is not asked. Raises InputError with all that is wrong with any name.
    """
    found, faults = [], []
    for name in names:
        try:
            found.append(_described(name))
        except InputError as error:
            faults.append(str(error))
    if faults:
        raise InputError("\n".join(faults))
    return found


def _described(name: str) -> Description:
    folder = local_folder(name)
    published = PUBLISHED.get(name)
    if published is not None and not is_path(name):
        return _as_published(published, folder)
    if folder is None:
        raise InputError(
            f"{name} is not in the hub's cache on this machine, and none of the models that Roslin knows without it. "
            f"Download it where there is a network (`{_download(name)}`), or give the path of a folder."
        )
    if is_adapter(folder):
        base = base_of(folder, find=_found_here)
        config = load_adapted_config(folder, str(base))
        return Description(name, config, licence_in(folder), folder, base=base)
    return Description(name, load_config(folder), licence_in(folder), folder)


def _download(name: str) -> str:
    """The command that downloads a model of a hub."""
    on_modelscope = MODELSCOPE_NAME.fullmatch(name)
    return f"ms-hub download {on_modelscope[1]}" if on_modelscope else f"hf download {name}"


def _found_here(name: str, revision: str | None) -> Path:
    found = local_folder(name, revision)
    if found is None:
        raise InputError(f"{name} is not on this machine. Download it, or ask the adapter once: that fetches its base.")
    return found


def _as_published(model: Published, folder: Path | None) -> Description:
    return Description(model.name, model.config, model.licence, folder, model.tokens, model.note)
