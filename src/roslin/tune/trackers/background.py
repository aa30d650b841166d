"""A tracker behind a queue: the loop never waits for it, and its failures cost curves and not the run."""

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue

from roslin.tune.trackers.tracker import Kind, Outcome, Points, TrackedRun, Tracker

PATIENCE = 30.0
"""Seconds that the end of a run waits for a tracker to take what is left."""


class Background:
    """Feeds one tracker from a thread of its own."""

    def __init__(self, tracker: Tracker, warn: Callable[[str], None]) -> None:
        """`warn` gets one line when the tracker fails; it is called from the thread."""
        self._tracker, self._warn = tracker, warn
        self._queue: SimpleQueue[Points | Outcome] = SimpleQueue()
        self._failed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, run: TrackedRun, past: Sequence[Points]) -> None:
        """Open the tracker; of `past` points, those of a resumed run's log, it gets the ones that it lacks."""
        self._thread = threading.Thread(
            target=self._work, args=(run, past), name=f"tracker-{self._tracker.name}", daemon=True
        )
        self._thread.start()

    def add(self, points: Points) -> None:
        """Hand points over."""
        if not self._failed.is_set():
            self._queue.put(points)

    def close(self, outcome: Outcome) -> None:
        """Have the tracker closed once it has taken what is left."""
        self._queue.put(outcome)

    def wait(self, patience: float = PATIENCE) -> None:
        """Wait until the tracker is closed; after `patience` seconds it is left alone."""
        if self._thread is None:
            return
        self._thread.join(patience)
        if self._thread.is_alive():
            self._warn(
                f"{self._tracker.name} has not taken all curves after {patience:.0f} s and is not waited for; "
                "log.jsonl has them all."
            )

    def _work(self, run: TrackedRun, past: Sequence[Points]) -> None:
        try:
            recorded: dict[Kind, int] = dict(self._tracker.start(run))
            for points in self._all(past):
                if points.update > recorded.get(points.kind, -1):
                    self._tracker.add(points)
                    recorded[points.kind] = points.update
            self._tracker.close(self._outcome)
        except Exception as error:
            self._failed.set()
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self._warn(f"{self._tracker.name} gets no more of this run's curves ({reason}); log.jsonl has them all.")

    def _all(self, past: Sequence[Points]) -> Iterator[Points]:
        yield from past
        while isinstance(item := self._queue.get(), Points):
            yield item
        self._outcome: Outcome = item
