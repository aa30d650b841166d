"""What every tracker of curves is, and what it is given."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

Kind = Literal["update", "evaluation"]
Outcome = Literal["finished", "stopped", "failed"]

CURVES = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "mfu", "memory_gib")
"""What of an update's line becomes a curve, where it is known."""


@dataclass(frozen=True)
class Points:
    """What one line of log.jsonl adds to the curves."""

    kind: Kind
    update: int
    values: Mapping[str, float]
    """By curve, such as `tune/loss`, `held_out/loss` or `held_out_by_category/open_qa`."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of the run when it starts."""

    folder: Path
    settings: Mapping[str, str]
    """The recipe, with dotted keys."""
    facts: Mapping[str, str]
    """Machine, packages, records: dotted keys too."""
    fingerprint: str
    """Of what decides the run's numbers: another one is another run, though it has the same folder."""
    goes_on_from: int
    """Update from which the run goes on: later points are those of a part that was lost. -1 when it starts anew."""


class Tracker(Protocol):
    """One place where curves go. Any of its methods may raise what it likes: the run goes on without it."""

    name: str

    def start(self, run: TrackedRun) -> Mapping[Kind, int]:
        """Open the run, the same one as before where it is resumed; the last update of each kind that it holds."""

    def add(self, points: Points) -> None:
        """Add points; every (kind, update) comes once, in order."""

    def close(self, outcome: Outcome) -> None:
        """Write what is buffered and say how the run ended."""


def dotted(values: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Nested values as texts by dotted keys, as trackers show them; None is left out."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        key = f"{above}{name}"
        if isinstance(value, Mapping):
            flat |= dotted(value, f"{key}.")
        elif value is not None:
            flat[key] = str(value)
    return flat


def points_of(kind: Kind, values: Mapping[str, Any]) -> Points:
    """The points of a line of log.jsonl."""
    if kind == "update":
        named = {f"tune/{name}": values.get(name) for name in CURVES}
    else:
        low, high = values.get("interval") or (None, None)
        named = {
            "held_out/loss": values["held_out"],
            "held_out/loss_low": low,
            "held_out/loss_high": high,
            "held_out/loss_without_end": values["held_out_without_end"],
            **{f"held_out_by_category/{name}": loss for name, loss in values["by_category"].items()},
        }
    return Points(kind, values["update"], {name: value for name, value in named.items() if value is not None})
