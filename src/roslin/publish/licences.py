"""Licences: what each asks of a model made under it, and which licence the result of several can have.

A table of facts, not advice: what share-alike data asks of weights that were tuned on it is not settled anywhere.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = Literal["free", "share-alike", "non-commercial", "no-derivatives", "conditions", "unknown"]


@dataclass(frozen=True)
class Effect:
    """What a licence asks."""

    kind: Kind
    asks: str
    """In words that follow `it`."""


_FREE = Effect("free", "allows any use, commercial use too")
_ATTRIBUTED = Effect("free", "allows any use, commercial use too, if its makers are named")
_SHARED = Effect(
    "share-alike",
    "allows commercial use, and asks that what is made from it be passed on under the same licence only, and its "
    "makers be named",
)
_NOT_SOLD = Effect("non-commercial", "forbids commercial use")
_NOT_SOLD_SHARED = Effect(
    "non-commercial",
    "forbids commercial use, and asks that what is made from it be passed on under the same licence only",
)
_NOT_SOLD_NOT_CHANGED = Effect("non-commercial", "forbids commercial use, and forbids passing on what is made from it")
_NOT_CHANGED = Effect("no-derivatives", "forbids passing on what is made from it")
_CONDITIONS = Effect(
    "conditions", "has conditions of its own (acceptable use, names, size of business): read it before any use"
)
_UNKNOWN = Effect("unknown", "is not known to Roslin: read it before any use")

_PATTERNS: tuple[tuple[str, Effect], ...] = (
    (r"cc-by-nc-sa(-[\d.]+)?", _NOT_SOLD_SHARED),
    (r"cc-by-nc-nd(-[\d.]+)?", _NOT_SOLD_NOT_CHANGED),
    (r"cc-by-nc(-\w+)*(-[\d.]+)?", _NOT_SOLD),
    (r"cc-by-nd(-[\d.]+)?", _NOT_CHANGED),
    (r"cc-by-sa(-[\d.]+)?", _SHARED),
    (r"gpl.*|agpl.*|lgpl.*|odbl", _SHARED),
    (r"cc-by(-[\d.]+)?|odc-by|bsd.*|apache-2\.0|mit|isc|ecl-2\.0|zlib", _ATTRIBUTED),
    (r"cc0-1\.0|unlicense|pddl|wtfpl|publicdomain", _FREE),
    (r"llama.*|gemma|.*openrail.*|.*rail.*|deepseek|qwen.*|tii-falcon.*|open-mdw|other", _CONDITIONS),
)


def effect_of(licence: str | None) -> Effect:
    """What a licence asks, by the hub's name for it."""
    if licence is None:
        return _UNKNOWN
    return next((effect for pattern, effect in _PATTERNS if re.fullmatch(pattern, licence.lower())), _UNKNOWN)


STARTER_RECORDS = "cc0-1.0"
DOLLY_15K = "cc-by-sa-3.0"
_BY_SHA256 = {"2df9083338b4abd6bceb5635764dab5d833b393b55759dffb0959b6fcbf794ec": DOLLY_15K}
"""Files of records: databricks-dolly-15k.jsonl as the hub has it."""
_BY_NAME = {
    "databricks/databricks-dolly-15k": DOLLY_15K,
    "databricks-dolly-15k.jsonl": DOLLY_15K,
    "tatsu-lab/alpaca": "cc-by-nc-4.0",
    "yahma/alpaca-cleaned": "cc-by-4.0",
    "vicgalle/alpaca-gpt4": "cc-by-nc-4.0",
    "OpenAssistant/oasst1": "apache-2.0",
    "OpenAssistant/oasst2": "apache-2.0",
    "HuggingFaceH4/no_robots": "cc-by-nc-4.0",
}
"""Sets of records by their name on the hub, or by that of their file, as their owners state it there."""


def records_licence(name: str, sha256: str | None) -> str | None:
    """The licence of a well-known set of records, by the hash of its file or by its name."""
    if sha256 is not None and sha256 == _starter_sha256():
        return STARTER_RECORDS
    if sha256 in _BY_SHA256:
        return _BY_SHA256[sha256]
    return _BY_NAME.get(name.partition(":")[0]) or _BY_NAME.get(name.rpartition("/")[2])


@cache
def _starter_sha256() -> str:
    return hashlib.sha256((files("roslin") / "assets" / "records" / "starter.jsonl").read_bytes()).hexdigest()


@dataclass(frozen=True)
class Material:
    """Something that a model is made from."""

    what: str
    """`base` or `records`, as a sentence begins with it."""
    name: str
    licence: str | None


def combined(base: str | None, records: Sequence[str | None]) -> str | None:
    """The licence of a model, where it follows from those of what it is made from; None where somebody must choose.

    A base that asks for share-alike settles it, as far as the base goes. Else it is that of a base that allows any use,
    where the records are known to allow any use too.
    """
    of_base, of_records = effect_of(base).kind, {effect_of(licence).kind for licence in records}
    if base and of_base == "share-alike":
        shared = [licence for licence in records if licence and effect_of(licence).kind == "share-alike"]
        bound = of_records <= {"free", "share-alike", "unknown"} and all(_passes_into(each, base) for each in shared)
        return base if bound else None
    return base if of_base == "free" and records and of_records == {"free"} else None


def _passes_into(licence: str, other: str) -> bool:
    """Whether what is shared alike under one licence may be passed on under the other: the same, or CC's later one."""
    both_cc = licence.startswith("cc-by-sa-") and other.startswith("cc-by-sa-")
    return licence == other or (both_cc and licence < other)


def warnings_of(materials: Sequence[Material]) -> list[str]:
    """What must be said of every material whose licence limits what may be done, or is not known."""
    return [warning for material in materials if (warning := _warning(material))]


def _warning(material: Material) -> str | None:
    found = effect_of(material.licence)
    if found.kind == "free":
        return None
    if material.licence is None:
        mend = " (records_licence in a recipe states it)" if material.what == "records" else ""
        return f"the licence of the {material.what} {material.name} is not recorded{mend}"
    return f"the {material.what} {material.name} {_are(material)} under {material.licence}, which {found.asks}"


def _are(material: Material) -> str:
    return "are" if material.what == "records" else "is"
