"""A filled sheet: one judge's verdicts on the pairs of a sheet, checked against its key."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from roslin.errors import InputError
from roslin.evaluate.pairwise.key import Key
from roslin.evaluate.pairwise.reading import faults_of, read_bytes
from roslin.evaluate.pairwise.verdict import Verdict


class Filled(BaseModel):
    """What the page saves, and what a judging model's verdicts are written as. Items without one may be missing."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    kind: Literal["roslin pairwise verdicts"] = "roslin pairwise verdicts"
    sheet: str
    judge: str
    verdicts: tuple[Verdict, ...]
    asked: dict[str, Any] | None = None
    """How a judging model was asked, its prompt word for word; None for a person."""

    def as_json(self) -> bytes:
        """The content of the file."""
        return orjson.dumps(self.model_dump(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    def faults(self, key: Key) -> list[str]:
        """Why this cannot be counted under a key, a line a fault."""
        if self.sheet != key.sheet:
            return [f"it is filled for another sheet ({self.sheet[:12]}…; the key is of {key.sheet[:12]}…)"]
        found = [] if self.judge.strip() else ["the judge has no name"]
        times = Counter(verdict.item for verdict in self.verdicts)
        found += [f"there is no item {item} in the sheet" for item in times if not 1 <= item <= len(key.items)]
        return found + [f"item {item} is judged {count} times" for item, count in times.items() if count > 1]


def read_filled(paths: Sequence[Path], key: Key) -> list[Filled]:
    """The filled files of a sheet's judges. Raises InputError with all that is wrong with any of them."""
    found: list[Filled] = []
    faults: list[str] = []
    judges: dict[str, Path] = {}
    for path in paths:
        try:
            filled = Filled.model_validate_json(read_bytes(path))
        except ValidationError as error:
            faults += [f"{path}: {fault}" for fault in faults_of(error)]
            continue
        except InputError as error:
            faults.append(str(error))
            continue
        found.append(filled)
        faults += [f"{path}: {fault}" for fault in filled.faults(key)]
        name = filled.judge.strip().casefold()
        if name and name in judges:
            faults.append(f"{path}: judge {filled.judge!r} has filled {judges[name]} already; a judge counts once")
        judges.setdefault(name, path)
    if faults:
        raise InputError("The filled files cannot be scored:\n" + "\n".join(f"  {fault}" for fault in faults))
    return found
