"""What is known of a model without loading it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from roslin.errors import InputError
from roslin.model.families import FAMILIES
from roslin.model.find import SHIPPED
from roslin.model.local import has_weights, is_path, licence_in, local_folder
from roslin.model.open import load_config
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

    @property
    def architecture(self) -> str:
        """The name of its class in transformers."""
        return FAMILIES[self.config.family].architecture

    @property
    def here(self) -> Presence:
        """Whether it can be loaded without a network: `partly` where weights are missing."""
        if self.folder is None:
            return "no"
        return "yes" if has_weights(self.folder) else "partly"


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
            f"Download it where there is a network (`hf download {name}`), or give the path of a folder."
        )
    return Description(name, load_config(folder), licence_in(folder), folder)


def _as_published(model: Published, folder: Path | None) -> Description:
    return Description(model.name, model.config, model.licence, folder, model.tokens, model.note)
