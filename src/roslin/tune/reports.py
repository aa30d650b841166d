"""What a run tells while it goes on: to its log, its trackers and whoever called it. The first process alone tells."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from roslin.model import Decoder
from roslin.tune.held_out import HeldOutLoss
from roslin.tune.log import EvaluationLog, LogFile, UpdateLog
from roslin.tune.measurements import Measurements
from roslin.tune.recipe import Recipe
from roslin.tune.setup import Prepared
from roslin.tune.state import Progress
from roslin.tune.trackers import Kind, Outcome, TrackedRun, Trackers, dotted, points_of


def _nothing(*_: object) -> None:
    """Do nothing: what a callback is when none is given."""


@dataclass(frozen=True)
class Tuned:
    """A finished run; the decoder holds the final weights (the best ones, when the recipe has patience).

    They are in fp32, exact, where the base is stored in something finer than the 16 bits of the passes.
    """

    decoder: Decoder
    """Of many processes, the first one has it whole, on the CPU, and the others have their shards."""
    before: HeldOutLoss
    """Of the base, its keys in place, before the first update."""
    held_out: HeldOutLoss
    """Of the final weights."""
    updates: int
    """Updates behind the final weights."""
    updates_in_all: int
    """Updates that the recipe's epochs come to."""
    tokens: int
    seconds: float
    stopped_early: bool


@dataclass(frozen=True)
class Callbacks:
    """What a run tells while it goes on. Of many processes, the first one tells."""

    on_start: Callable[[Progress, int], None] = _nothing
    """Progress at the start (update 0, or a checkpoint's), and the number of updates in all."""
    on_step: Callable[[UpdateLog], None] = _nothing
    on_evaluate: Callable[[EvaluationLog, Decoder], None] = _nothing
    """After each measurement, with the model as it is now, to be used and not changed. Of many processes, where samples
    are due (`sample_every`) it is whole, on the CPU; elsewhere it is in shards, with which one process can do nothing.
    """
    on_finish: Callable[[Tuned], None] = _nothing
    on_warning: Callable[[str], None] = _nothing
    """What went wrong beside the run, which goes on; from any thread."""


class Reports:
    """The log and the trackers of a run, and its callbacks."""

    def __init__(
        self, recipe: Recipe, prepared: Prepared, callbacks: Callbacks, facts: Mapping[str, Any], keep_until: int
    ) -> None:
        """Open them. Lines of updates after `keep_until`, which is -1 for a run that starts anew, are dropped."""
        self._recipe, self._prepared, self._callbacks, self._facts = recipe, prepared, callbacks, facts
        self._keep_until = keep_until
        self._log = LogFile(recipe.output / "log.jsonl", keep_until=keep_until)
        self._trackers = Trackers.of(recipe, callbacks.on_warning)

    def start(self, progress: Progress, updates: int) -> None:
        """Tell where the run begins."""
        self._callbacks.on_start(progress, updates)
        run = TrackedRun(
            folder=self._recipe.output,
            settings=dotted(self._recipe.model_dump(mode="json")),
            facts=dotted(self._facts),
            fingerprint=self._prepared.fingerprint,
            goes_on_from=self._keep_until,
        )
        self._trackers.start(run, (points_of(line["kind"], line) for line in self._log.lines()))

    def update(self, log: UpdateLog) -> None:
        """Tell of an update."""
        self._write("update", asdict(log))
        self._callbacks.on_step(log)

    def evaluation(self, log: EvaluationLog, before: HeldOutLoss, decoder: Decoder) -> None:
        """Tell of a measurement; `before` is the base's."""
        self._write("evaluation", log.summary())
        self._write_measurements(log.held_out, before, log.update)
        self._callbacks.on_evaluate(log, decoder)

    def finish(self, tuned: Tuned) -> None:
        """Tell of the end."""
        self._write_measurements(tuned.held_out, tuned.before, tuned.updates)
        self._callbacks.on_finish(tuned)

    def close(self, outcome: Outcome) -> None:
        """Close log and trackers."""
        self._log.close()
        self._trackers.close(outcome)

    def _write(self, kind: Kind, values: dict[str, Any]) -> None:
        self._log.write(kind, values)
        self._trackers.add(kind, values)

    def _write_measurements(self, held_out: HeldOutLoss, before: HeldOutLoss, update: int) -> None:
        Measurements(self._prepared.held_out.digest, update, before, held_out).write(self._recipe.output)
