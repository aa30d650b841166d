"""Two runs side by side: where their recipes and facts differ, where their curves part, and how they end."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from roslin.errors import InputError
from roslin.publish import LossComparison
from roslin.tune.log import read_log
from roslin.tune.measurements import Measurements
from roslin.tune.trackers import dotted
from roslin.tune.whole import read_json
from roslin.workflows.model_folder import compare, compare_by_category
from roslin.workflows.run_folder import FACTS, LOG, PLAN, RECIPE_COPY

TOLERANCE = 1e-4
"""Nats a token: far above fp32's rounding in another order, far below what a wrong setting does."""
CURVES = {"loss": ("update", "loss"), "held-out loss": ("evaluation", "held_out")}
"""The compared curves: which lines of log.jsonl they are in, and under which name."""
VOLATILE = ("started", "ended", "outcome", "from_update", "command", "working_folder", "peak_memory_gib")
"""What differs between any two starts and changes no number."""
CHOSEN = ("method", "moments", "gradients", "in_backward", "checkpointed_layers", "tokens_per_pass", "fp8")
"""What a plan chooses where the recipe leaves it open: another machine's plan may choose otherwise."""


@dataclass(frozen=True)
class Difference:
    """A setting or fact that is not the same in both; None where one has none."""

    key: str
    first: str | None
    second: str | None


@dataclass(frozen=True)
class Point:
    """Both runs' value at one update."""

    update: int
    first: float
    second: float

    @property
    def gap(self) -> float:
        """How far the second is above the first."""
        return self.second - self.first


@dataclass(frozen=True)
class CurveComparison:
    """One curve of both runs, at the updates that both have."""

    name: str
    points: int
    last_first: int | None
    """The last update of the first run's curve."""
    last_second: int | None
    parting: Point | None
    """The first update at which they differ by more than the tolerance."""
    largest: Point | None
    """Where they differ most."""

    @property
    def agrees(self) -> bool:
        """Whether both have the same points, within the tolerance."""
        return self.points > 0 and self.parting is None and self.last_first == self.last_second


@dataclass(frozen=True)
class HeldOutComparison:
    """The weights that both runs ended with (or have reached), on the same held-out records, paired."""

    first_update: int
    second_update: int
    whole: LossComparison
    """`before` is the first run, `after` the second."""
    by_category: Mapping[str, LossComparison]


@dataclass(frozen=True)
class RunComparison:
    """All that `roslin tune --check RUN RUN` finds."""

    first: Path
    second: Path
    tolerance: float
    recipe: list[Difference]
    facts: list[Difference]
    curves: list[CurveComparison]
    held_out: HeldOutComparison | None
    """None where the runs were not measured on the same records."""

    @property
    def agrees(self) -> bool:
        """Whether all curves agree."""
        return all(curve.agrees for curve in self.curves)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for programs."""
        return {"agrees": self.agrees} | asdict(self) | {"first": str(self.first), "second": str(self.second)}


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run that has begun."""
    return (folder / LOG).is_file()


def compare_runs(first: Path, second: Path, tolerance: float = TOLERANCE) -> RunComparison:
    """Compare two runs' folders; nothing in them is changed. Raises InputError for a folder that is no run's."""
    lines = [_lines(folder) for folder in (first, second)]
    return RunComparison(
        first=first,
        second=second,
        tolerance=tolerance,
        recipe=_differences(_recipe(first), _recipe(second)),
        facts=_differences(_facts(first), _facts(second)),
        curves=[
            _curve(name, _values(lines[0], kind, key), _values(lines[1], kind, key), tolerance)
            for name, (kind, key) in CURVES.items()
        ],
        held_out=_held_out(first, second),
    )


def _lines(folder: Path) -> list[dict[str, Any]]:
    if not is_run(folder):
        raise InputError(f"{folder}: no run's folder, there is no {LOG} in it. Give the output folders of two runs.")
    return read_log(folder / LOG)


def _values(lines: list[dict[str, Any]], kind: str, key: str) -> dict[int, float]:
    return {line["update"]: line[key] for line in lines if line["kind"] == kind}


def _curve(name: str, first: dict[int, float], second: dict[int, float], tolerance: float) -> CurveComparison:
    points = [Point(update, first[update], second[update]) for update in sorted(first.keys() & second.keys())]
    return CurveComparison(
        name=name,
        points=len(points),
        last_first=max(first, default=None),
        last_second=max(second, default=None),
        parting=next((point for point in points if not abs(point.gap) <= tolerance), None),  # a nan parts too
        largest=max(points, key=lambda point: abs(point.gap), default=None),
    )


def _recipe(folder: Path) -> dict[str, str]:
    try:
        values = yaml.safe_load((folder / RECIPE_COPY).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return dotted({key: value for key, value in values.items() if key != "output"}) if isinstance(values, dict) else {}


def _facts(folder: Path) -> dict[str, str]:
    """What was so when the run was last started, and what holds for all of it; results and times are left out."""
    values = read_json(folder / FACTS) or {}
    starts = values.get("starts") or [{}]
    kept = {key: values.get(key) for key in ("model", "tokenizer", "records", "seed", "updates")}
    planned = (read_json(folder / PLAN) or {}).get("predicted") or {}
    chosen = {"plan": {key: planned.get(key) for key in CHOSEN}}
    return dotted(kept | chosen | {key: value for key, value in starts[-1].items() if key not in VOLATILE})


def _differences(first: Mapping[str, str], second: Mapping[str, str]) -> list[Difference]:
    def all_of() -> Iterator[Difference]:
        for key in dict.fromkeys([*first, *second]):
            if first.get(key) != second.get(key):
                yield Difference(key, first.get(key), second.get(key))

    return list(all_of())


def _held_out(first: Path, second: Path) -> HeldOutComparison | None:
    one, other = Measurements.read(first), Measurements.read(second)
    if one is None or other is None or one.digest != other.digest:
        return None
    return HeldOutComparison(
        first_update=one.update,
        second_update=other.update,
        whole=compare(one.tuned, other.tuned, with_end=True),
        by_category=compare_by_category(one.tuned, other.tuned),
    )
