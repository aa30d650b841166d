"""facts.json of a run: what it was made of and where it ran, so that it can be repeated and held against another."""

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from roslin.errors import RoslinError
from roslin.model import find_model
from roslin.model.fingerprint import fingerprint
from roslin.prompt import FORBIDDEN_IN_RECORDS
from roslin.publish.evidence import CheckEvidence
from roslin.records import CheckOptions, Record, check
from roslin.records.sources import find_sources
from roslin.tune import Interrupted, Prepared, Recipe, Tuned
from roslin.tune.log import memory_gib
from roslin.tune.whole import read_json, write_json
from roslin.workflows import machine_facts
from roslin.workflows.run_folder import FACTS, RECIPE_COPY, recipe_yaml
from roslin.workflows.tuning_evidence import Gathered, source_evidence

FORMAT = 1


class RunFacts:
    """The facts of one run, which may be started several times; each start adds an entry to `starts`."""

    def __init__(self, recipe: Recipe, prepared: Prepared) -> None:
        """Gather what is known before the first update; nothing is written."""
        self._path = recipe.output / FACTS
        self._prepared = prepared
        self._model = find_model(recipe.model, recipe.revision)
        self._recipe = recipe
        self._digest: Future[str | None] | None = None
        self._check: Future[CheckEvidence | None] | None = None
        self._start: dict[str, Any] = {}
        self.for_trackers: dict[str, Any] = {}
        """What trackers show beside the curves; filled when the run begins."""
        self.values: dict[str, Any] = {
            "format": FORMAT,
            "fingerprint": prepared.fingerprint,
            "recipe": {"file": RECIPE_COPY, "sha256": _sha256(recipe_yaml(recipe).encode())},
            "model": {
                "name": recipe.model,
                "revision": recipe.revision,
                "path": str(self._model.resolve()),
                "sha256": None,
                "parameters": prepared.decoder.config.parameter_count,
                "stored_dtype": _plain(prepared.stored_dtype),
            },
            "tokenizer": {
                "sha256": _sha256(prepared.tokenizer.marked_backend().to_str().encode()),
                "size": prepared.tokenizer.size,
            },
            "records": _records(recipe, prepared),
            "seed": recipe.seed,
            "updates": prepared.course.updates,
            "starts": [],
        }

    def begin(self, from_update: int) -> None:
        """Write the facts of a run that starts, or goes on, at an update. Raises MachineError."""
        earlier = read_json(self._path) or {}
        if from_update and earlier.get("fingerprint") == self.values["fingerprint"]:
            self.values["starts"] = earlier.get("starts", [])
        self._start = {
            "started": _now(),
            "ended": None,
            "outcome": None,
            "from_update": from_update,
            "command": sys.argv,
            "working_folder": str(Path.cwd()),
            "processes": int(os.environ.get("WORLD_SIZE", "1")),
            "device": str(self._prepared.decoder.device),
            "passes": _passes(self._prepared),
            "machine": machine_facts.machine(),
            "packages": machine_facts.packages(),
            "numerics": machine_facts.numerics(),
            "environment": machine_facts.environment(),
            "code": machine_facts.code(),
        }
        self.values["starts"].append(self._start)
        shown = ("processes", "device", "passes", "machine", "packages", "code")
        self.for_trackers |= {name: self._start[name] for name in shown}
        self.for_trackers["records"] = {part: self.values["records"][part] for part in ("train", "held_out")}
        beside = ThreadPoolExecutor(1, "facts")
        self._digest = beside.submit(_digest, self._model)
        self._check = beside.submit(check_records, self._recipe)
        self._write()

    def gathered(self) -> Gathered:
        """What the model's card says of the run's materials; waits for what is read beside the run."""
        records, licence = self.values["records"], self._recipe.records_licence
        files = records["files"][: len(find_sources(self._recipe.records))]  # behind them, that of held-out records
        return Gathered(
            train=self._prepared.train,
            dropped=len(self._prepared.dropped),
            sources=[source_evidence(file["name"], file["sha256"], licence) for file in files],
            train_sha256=records["train"]["sha256"],
            check=self._check.result() if self._check else None,
            base_fingerprint=self._digest.result() if self._digest else None,
            processes=int(os.environ.get("WORLD_SIZE", "1")),
        )

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Note how what is done inside ends, and when."""
        try:
            yield
        except Interrupted:
            self._end("stopped")
            raise
        except BaseException as error:
            self._end(f"failed: {error}" if isinstance(error, RoslinError) else f"failed: {type(error).__name__}")
            raise

    def finish(self, tuned: Tuned) -> None:
        """Note the result of a run that came to its end. Raises MachineError."""
        if self._digest is not None:
            self._digest.result()  # the base's files are read while the run goes on; little is left to wait for
        self.values["result"] = {
            "updates": tuned.updates,
            "updates_in_all": tuned.updates_in_all,
            "stopped_early": tuned.stopped_early,
            "tokens": tuned.tokens,
            "seconds_of_stepping": tuned.seconds,
            "held_out_before": tuned.before.loss,
            "held_out": tuned.held_out.loss,
        }
        self._end("finished")

    def _end(self, outcome: str) -> None:
        if not self._start:
            return  # it never began: the folder is another run's, or the machine could not
        memory = memory_gib(self._prepared.decoder.device)
        self._start |= {"ended": _now(), "outcome": outcome, "peak_memory_gib": round(memory, 3)}
        self._write()

    def _write(self) -> None:
        if self._digest is not None and self._digest.done():
            self.values["model"]["sha256"] = self._digest.result()
        if self._check is not None and self._check.done():
            found = self._check.result()
            self.values["records"]["check"] = found.model_dump() if found else None
        write_json(self._path, self.values)


def _digest(model: Path) -> str | None:
    """The base's fingerprint: reading 13 GB takes a minute, so the run does not wait for it."""
    try:
        return fingerprint(model)
    except RoslinError:
        return None


def check_records(recipe: Recipe) -> CheckEvidence | None:
    """What a check of all records finds, personal matter too; None where they cannot be read any more."""
    held_out = [recipe.held_out.file] if recipe.held_out.file else []
    options = CheckOptions(mapping=recipe.mapping, keys=FORBIDDEN_IN_RECORDS, held_out=held_out, privacy=True)
    try:
        found = check(recipe.records, options)
    except (RoslinError, OSError):
        return None
    return CheckEvidence(
        records=found.records,
        findings=dict(sorted(found.counts().items())),
        private=dict(sorted(found.privacy.items())),
        held_out_compared=bool(held_out),
    )


def _passes(prepared: Prepared) -> dict[str, str]:
    """What computes the passes."""
    runner = prepared.decoder.blocks[0].runner
    return {
        "dtype": _plain(prepared.decoder.dtype),
        "blocks": "torch modules" if runner is None else runner.__module__,
    }


def _records(recipe: Recipe, prepared: Prepared) -> dict[str, Any]:
    held_out = prepared.held_out
    named = [*recipe.records, *([recipe.held_out.file] if recipe.held_out.file else [])]
    return {
        "files": [_file(source.name, source.path) for source in find_sources(named)],
        "train": {
            "count": len(prepared.train),
            "sha256": records_digest(prepared.train),
            "by_category": _counts([record.category for record in prepared.train]),
        },
        "held_out": {
            "count": len(held_out),
            "tokens_sha256": held_out.digest,
            "by_category": _counts(held_out.categories),
        },
        "dropped": len(prepared.dropped),
    }


def _file(name: str, path: Path | None) -> dict[str, Any]:
    if path is None:
        return {"name": name, "sha256": None}  # a dataset of the hub; the digest of its records tells it
    with path.open("rb") as file:
        return {"name": name, "path": str(path.resolve()), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def records_digest(records: list[Record]) -> str:
    """Hash of records' fields, in order."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps(record.model_dump(), ensure_ascii=True, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _counts(categories: list[str]) -> dict[str, int]:
    return dict(sorted(Counter(category or "none" for category in categories).items()))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _plain(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
