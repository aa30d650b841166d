"""The key of a sheet: which model gave which answer, and all that the sheet was made with."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from roslin.errors import InputError
from roslin.evaluate.pairwise.pair import Pair
from roslin.evaluate.pairwise.reading import faults_of, read_bytes

Model = Literal["a", "b"]


class Item(BaseModel):
    """A pair, and what its judges must not know."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    pair: Pair
    category: str
    left_is: Model
    """Which model gave the left answer."""


class Key(BaseModel):
    """What is needed to score the verdicts on a sheet, or to have its pairs judged by a model."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    kind: Literal["roslin pairwise key"] = "roslin pairwise key"
    sheet: str
    """`digest` of the pairs: verdicts on another sheet have another."""
    model_a: str
    model_b: str
    seed: int
    settings: dict[str, Any]
    """How the answers were drawn."""
    left_out: int
    """Records of the sample that were too long for one of the models."""
    items: tuple[Item, ...]

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """What judges see."""
        return tuple(item.pair for item in self.items)

    @property
    def shows_reference(self) -> bool:
        """Whether judges see the records' own responses."""
        return any(pair.reference is not None for pair in self.pairs)

    def as_json(self) -> bytes:
        """The content of the key's file."""
        return orjson.dumps(self.model_dump(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def digest(pairs: Sequence[Pair]) -> str:
    """A hash of all that judges see, in its order; it tells nothing of the models beyond their answers."""
    return hashlib.sha256(orjson.dumps([pair.model_dump() for pair in pairs])).hexdigest()


def read_key(path: Path) -> Key:
    """Read the file of a key. Raises InputError when it is no key, or was changed after it was written."""
    try:
        key = Key.model_validate_json(read_bytes(path))
    except ValidationError as error:
        told = "\n".join(f"  {fault}" for fault in faults_of(error))
        raise InputError(
            f"{path} is not the key of a sheet; `roslin judge sheet` writes it beside the sheet, with a name that ends "
            f"in .key.json.\n{told}"
        ) from None
    numbers = [pair.number for pair in key.pairs]
    if digest(key.pairs) != key.sheet or numbers != list(range(1, len(numbers) + 1)):
        raise InputError(
            f"{path} was changed after it was written: its pairs are not those of its sheet. Take the original."
        )
    return key
