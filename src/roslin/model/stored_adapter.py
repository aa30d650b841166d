"""What an adapter's files hold, found and checked by their headers before any weights move."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from roslin.errors import InputError
from roslin.model.adapted import LINEARS, file_modules
from roslin.model.families import FAMILIES
from roslin.model.peft_config import CONFIG, PeftConfig
from roslin.model.stored import stored_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from roslin.model.config import ModelConfig
    from roslin.model.family import Family
    from roslin.model.stored import StoredTensor

WEIGHT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "base_model.model."
HEAD = "lm_head"
"""What transformers 5 calls the head of every family while it runs, and PEFT in an adapter's names."""
ROWS = "token_adapter.trainable_tokens_delta"
LORA_NAME = re.compile(r"(.+)\.lora_([AB])\.weight")
ROWS_NAME = re.compile(rf"(.+)\.{re.escape(ROWS)}")
# An embedding that was resized before some of its rows were trained is stored whole as well, under a longer name.
WHOLE_NAME = re.compile(r"(.+?)(?:\.token_adapter\.base_layer)?\.(weight|bias)")
COPY_NAME = re.compile(r".+\.(original_module|modules_to_save)\.(weight|bias)")
"""What PEFT stores besides of a module that was resized and then trained whole, which stands under its plain name."""
FAULTS_SHOWN = 20

Role = Literal["A", "B", "rows", "weight", "bias"]
Outer = Literal["embedding", "head"]


@dataclass(frozen=True)
class Place:
    """Where a module of the files lies in the decoder: rows of a block's linear layer."""

    module: str
    layer: int
    ours: str
    start: int
    stop: int
    columns: int


def places_of(config: ModelConfig) -> Iterator[Place]:
    """All modules that LoRA can be added to."""
    columns = {"out": config.query_rows, "down": config.inner}
    for layer in range(config.layers):
        for ours in LINEARS:
            for module, start, stop in file_modules(config, layer, ours):
                yield Place(module, layer, ours, start, stop, columns.get(ours, config.width))


@dataclass(frozen=True)
class StoredAdapter:
    """What an adapter's folder holds, and which tokens its rows are of.

    `tensors` are by module and role: A and B of a LoRA; rows, or the whole weight or bias, of `embedding` and `head`.
    """

    config: PeftConfig
    tensors: Mapping[tuple[str, Role], StoredTensor]
    ids: Mapping[Outer, Sequence[int]]

    @classmethod
    def read(cls, folder: Path, base: ModelConfig) -> StoredAdapter:
        """Read an adapter's configuration and headers. Raises InputError listing all that does not fit such a base."""
        config, family = PeftConfig.read(folder), FAMILIES[base.family]
        placed: dict[tuple[str, Role], StoredTensor] = {}
        faults = []
        for name, tensor in _tensors(folder).items():
            place = _place(family, name.removeprefix(PREFIX))
            if place is None or place in placed:
                faults.append(f"{tensor} is {'not known' if place is None else 'given twice'}")
            else:
                placed[place] = tensor
        stored = cls(config, placed, _token_ids(config, family))
        _raise_faults(folder, [*faults, *_faults_of_pairs(stored, base), *_faults_of_outer(stored, base)])
        return stored

    @property
    def rows_needed(self) -> int:
        """How many rows embedding and head must have for what is stored."""
        tokens = [token + 1 for ids in self.ids.values() for token in ids]
        return max([*tokens, *(tensor.shape[0] for tensor in self.whole.values())], default=0)

    @property
    def whole(self) -> dict[str, StoredTensor]:
        """The tensors that take the place of the decoder's own, by its names."""
        return {f"{module}.{role}": x for (module, role), x in self.tensors.items() if role in ("weight", "bias")}

    @property
    def adapted(self) -> set[str]:
        """The modules that have a LoRA."""
        return {module for module, role in self.tensors if role in ("A", "B")}


def _tensors(folder: Path) -> dict[str, StoredTensor]:
    for file in WEIGHT_FILES:
        if (folder / file).is_file():
            tensors = stored_tensors(folder / file)
            return {name: tensor for name, tensor in tensors.items() if not COPY_NAME.fullmatch(name)}
    raise InputError(f"{folder} holds no weights of an adapter: none of {', '.join(WEIGHT_FILES)} is there.")


def outer_module(family: Family, ours: Outer) -> str:
    """What the family's files call the embedding or the head."""
    return family.outer[f"{ours}.weight"].names[0].removesuffix(".weight")


def _place(family: Family, name: str) -> tuple[str, Role] | None:
    """The module that a tensor belongs to, and its role there; None for what Roslin does not know."""
    if found := LORA_NAME.fullmatch(name):
        return _canonical(family, found[1]), "A" if found[2] == "A" else "B"
    if found := ROWS_NAME.fullmatch(name):
        return _outer_place(family, found[1], "rows")
    if found := WHOLE_NAME.fullmatch(name):
        return _outer_place(family, found[1], "weight" if found[2] == "weight" else "bias")
    return None


def _outer_place(family: Family, module: str, role: Role) -> tuple[str, Role] | None:
    outer: tuple[Outer, Outer] = ("embedding", "head")
    return next(((ours, role) for ours in outer if _canonical(family, module) == outer_module(family, ours)), None)


def _canonical(family: Family, module: str) -> str:
    return family.canonical(f"{module}.weight").removesuffix(".weight")


def _token_ids(config: PeftConfig, family: Family) -> dict[Outer, list[int]]:
    """The tokens whose rows are stored: of the embedding, which a list without a name means too, and of the head."""
    ids: dict[Outer, list[int]] = {"embedding": [], "head": []}
    for name, tokens in config.token_ids.items():
        is_head = name is not None and name in (HEAD, outer_module(family, "head"))
        ids["head" if is_head else "embedding"] = tokens
    return ids


def _faults_of_pairs(stored: StoredAdapter, base: ModelConfig) -> Iterator[str]:
    places = {place.module: place for place in places_of(base)}
    yield from (f"{module} is no module that Roslin adds LoRA to" for module in stored.adapted - places.keys())
    for module in stored.adapted & places.keys():
        place, rank = places[module], stored.config.rank_of(module)
        shapes: dict[Role, tuple[int, int]] = {"A": (rank, place.columns), "B": (place.stop - place.start, rank)}
        for role, shape in shapes.items():
            yield from _faults_of_shape(stored, module, role, shape)


def _faults_of_outer(stored: StoredAdapter, base: ModelConfig) -> Iterator[str]:
    embedding, head = stored.ids["embedding"], stored.ids["head"]
    if embedding:
        yield from _faults_of_shape(stored, "embedding", "rows", (len(embedding), base.width))
    if head and base.tied_head and head != embedding:
        yield f"trainable_token_indices gives {HEAD} tokens of its own, and the base's head is tied to its embedding"
    elif head and not base.tied_head:
        yield from _faults_of_shape(stored, "head", "rows", (len(head), base.width))
    for ours, tensor in stored.whole.items():
        if tensor.shape[1:] != ((base.width,) if ours.endswith("weight") else ()):
            yield f"{tensor} has the shape {list(tensor.shape)}; the base has a width of {base.width}"


def _faults_of_shape(stored: StoredAdapter, module: str, role: Role, shape: tuple[int, int]) -> Iterator[str]:
    tensor = stored.tensors.get((module, role))
    if tensor is None:
        yield f"{module} has no {role}, which {CONFIG} or its other tensor asks for"
    elif tensor.shape != shape:
        yield f"{tensor} has the shape {list(tensor.shape)}; base and {CONFIG} make it {list(shape)}"
    elif not tensor.dtype.is_floating_point:
        yield f"{tensor} holds {tensor.dtype}; it must be made of floating-point numbers"


def _raise_faults(folder: Path, faults: list[str]) -> None:
    if faults:
        shown = [f"  {fault}" for fault in sorted(faults)[:FAULTS_SHOWN]]
        more = [f"  and {len(faults) - FAULTS_SHOWN} more of the kind"] if len(faults) > FAULTS_SHOWN else []
        raise InputError("\n".join([f"The adapter in {folder} does not fit its base:", *shown, *more]))
