"""roslin.json of a model folder: what is known of the model, as data. The card is a rendering of it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from roslin.errors import InputError, write_failed
from roslin.publish.evidence.benchmarks import BenchmarkEvidence
from roslin.publish.evidence.limits import LimitsEvidence
from roslin.publish.evidence.part import Part
from roslin.publish.evidence.responses import FollowedEvidence, ResponsesEvidence
from roslin.publish.evidence.tuning import TuningEvidence

EVIDENCE = "roslin.json"
FORMAT = 1
SHOWN_FAULTS = 5


class Stated(Part):
    """What a person said of the model: no record can tell it."""

    owner: str | None = None
    licence: str | None = None
    """As the hub spells it."""


class Evidence(Part):
    """Everything that a card of a model folder may state, beside what its own files show."""

    format: Literal[1] = 1
    stated: Stated = Field(default_factory=Stated)
    tuning: TuningEvidence | None = None
    """None where Roslin did not tune it."""
    benchmarks: list[BenchmarkEvidence] = Field(default_factory=list)
    """One for each way of asking."""
    limits: LimitsEvidence | None = None
    responses: ResponsesEvidence | None = None
    followed: FollowedEvidence | None = None
    """Instructions that a program can check."""

    def of_weights(self, fingerprint: str | None) -> Evidence:
        """The same without what was measured on other weights than these; of weights without a hash, without any."""

        def same(part: BenchmarkEvidence | LimitsEvidence | ResponsesEvidence | FollowedEvidence) -> bool:
            return fingerprint is not None and part.fingerprint == fingerprint

        single = {name: getattr(self, name) for name in ("limits", "responses", "followed")}
        kept = {name: part if part and same(part) else None for name, part in single.items()}
        benchmarks = [each for each in self.benchmarks if same(each)]
        return self.model_copy(update={**kept, "benchmarks": benchmarks})

    def with_benchmarks(self, found: BenchmarkEvidence) -> Evidence:
        """The same with these scores in the place of those of the same way of asking."""
        others = [each for each in self.benchmarks if each.way != found.way]
        return self.model_copy(update={"benchmarks": sorted([*others, found], key=lambda each: each.order)})


def read_evidence(folder: Path) -> Evidence:
    """What is known of a model folder; nothing without roslin.json. Raises InputError for a file with faults."""
    path = folder / EVIDENCE
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return Evidence()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    _check_format(path, data)
    try:
        return Evidence.model_validate_json(data)
    except ValidationError as error:
        found = error.errors(include_url=False)
        lines = [f"  {'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found[:SHOWN_FAULTS]]
        more = [f"  … and {len(found) - SHOWN_FAULTS} more"] if len(found) > SHOWN_FAULTS else []
        told = "\n".join([*lines, *more])
        raise InputError(
            f"{path}: is not what Roslin wrote; the card is made from it, so nothing is guessed:\n{told}\n"
            "Take the file from the run's own model folder again, or move it away: the card then says what is missing."
        ) from None


def _check_format(path: Path, data: bytes) -> None:
    try:
        values = json.loads(data)
    except ValueError as error:
        raise InputError(f"{path}: no JSON ({error}). Take it from the run's model folder again.") from None
    version = values.get("format") if isinstance(values, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise InputError(
            f"{path}: of format {version}, and this Roslin reads format {FORMAT}. A newer Roslin wrote it: "
            "pip install --upgrade roslin."
        )


def write_evidence(folder: Path, evidence: Evidence) -> None:
    """Write roslin.json whole: a reader sees the old one or the new one. Raises MachineError when it cannot be."""
    text = json.dumps(evidence.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"
    write_whole(folder / EVIDENCE, text.encode("utf-8", "backslashreplace"))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under another name, then give it its own, with the rights that the old one had."""
    partial = None
    try:
        rights = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        partial = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(rights)
        partial.replace(path)
    except OSError as error:
        if partial is not None:
            partial.unlink(missing_ok=True)
        raise write_failed(path, error) from error


def _umask() -> int:
    """The rights that this process takes from new files; it can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
