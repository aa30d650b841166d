"""An inquiry: a judge is asked about every pair of a sheet, several at once; what it said stays, whatever happens."""

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from roslin.errors import InputError, write_failed
from roslin.evaluate.pairwise.endpoint import JudgeUnusable
from roslin.evaluate.pairwise.pair import Pair
from roslin.evaluate.pairwise.reading import faults_of, read_bytes
from roslin.evaluate.pairwise.verdict import Judge, Verdict

MOST_FAILURES_IN_A_ROW = 5
"""After so many the judge is taken to be of no use, or away."""


class Notebook:
    """A file of JSON lines: first how the judge is asked, then each verdict as it comes. Made when it is not there."""

    def __init__(self, path: Path, asked: Mapping[str, Any]) -> None:
        """Raises InputError when the file belongs to another inquiry, or cannot be read."""
        self.path = path
        self.verdicts: dict[int, Verdict] = {}
        if path.exists():
            self._read(asked)
        else:
            self._write(dict(asked), "xb")

    def add(self, verdict: Verdict) -> None:
        """Keep a verdict. Raises MachineError when it cannot be written."""
        self._write(verdict.model_dump(), "ab")
        self.verdicts[verdict.item] = verdict

    def _read(self, asked: Mapping[str, Any]) -> None:
        lines = self._whole_lines()
        try:
            before = orjson.loads(lines[0]) if lines else None
        except orjson.JSONDecodeError:
            before = None
        if not isinstance(before, dict):
            raise InputError(f"{self.path} is not a file of this command's replies. Give another --out.")
        if differing := sorted(name for name in before | dict(asked) if before.get(name) != asked.get(name)):
            raise InputError(
                f"{self.path} holds replies to other questions: {', '.join(differing)} differ. Give another --out, or "
                "the settings of the first run to go on with it."
            )
        for number, line in enumerate(lines[1:], 2):
            try:
                verdict = Verdict.model_validate_json(line)
            except ValidationError as error:
                raise InputError(f"{self.path}:{number}: {'; '.join(faults_of(error))}. Remove the line.") from None
            self.verdicts[verdict.item] = verdict

    def _whole_lines(self) -> list[bytes]:
        """All lines but one that a crash cut off, which goes, so that the next does not grow onto it."""
        content = read_bytes(self.path)
        whole = content.rfind(b"\n") + 1
        if whole < len(content) and whole:
            with self.path.open("r+b") as stream:
                stream.truncate(whole)
        return content[:whole].splitlines()

    def _write(self, value: Mapping[str, Any], mode: str) -> None:
        try:
            with self.path.open(mode) as stream:
                stream.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))
        except OSError as error:
            raise write_failed(self.path, error) from None


@dataclass
class Outcome:
    """What came of an inquiry."""

    failures: dict[int, str] = field(default_factory=dict)
    """By the pair's number, why it has no verdict."""
    unasked: int = 0
    """Pairs that were not asked about any more."""
    stopped: str | None = None
    """Why the judge was given up; None where it was asked to the end."""


_News = tuple[Pair, Verdict | BaseException]


def ask_about(
    pairs: Sequence[Pair],
    judge: Judge,
    notebook: Notebook,
    *,
    at_once: int = 4,
    on_progress: Callable[[], None] = lambda: None,
) -> Outcome:
    """Ask `judge` about all pairs that the notebook has no verdict on, `at_once` at a time.

    A pair that gets no verdict does not stop the others; a judge that is unusable, or fails often in a row, is given
    up. `on_progress` is told of each pair. Raises what a judge raises beyond InputError, and MachineError when a
    verdict cannot be written.
    """
    missing = [pair for pair in pairs if pair.number not in notebook.verdicts]
    outcome = Outcome(unasked=len(missing))
    waiting: queue.SimpleQueue[Pair] = queue.SimpleQueue()
    news: queue.SimpleQueue[_News | None] = queue.SimpleQueue()
    given_up = threading.Event()
    for pair in missing:
        waiting.put(pair)
    # Daemons: after Ctrl-C nobody waits for a reply that is still to come.
    threads = [
        threading.Thread(target=_work, args=(judge, waiting, news, given_up), daemon=True)
        for _ in range(min(at_once, len(missing)))
    ]
    for thread in threads:
        thread.start()
    try:
        _take_down(news, len(threads), notebook, outcome, given_up, on_progress)
    finally:
        given_up.set()
    return outcome


def _work(
    judge: Judge, waiting: "queue.SimpleQueue[Pair]", news: "queue.SimpleQueue[_News | None]", given_up: threading.Event
) -> None:
    """Judge one pair after the other; None says that this thread has ended."""
    try:
        while not given_up.is_set():
            pair = waiting.get_nowait()
            try:
                news.put((pair, judge.judge(pair)))
            except BaseException as error:
                news.put((pair, error))
    except queue.Empty:
        pass
    finally:
        news.put(None)


def _take_down(
    news: "queue.SimpleQueue[_News | None]",
    threads: int,
    notebook: Notebook,
    outcome: Outcome,
    given_up: threading.Event,
    on_progress: Callable[[], None],
) -> None:
    in_a_row = 0
    while threads:
        told = news.get()
        if told is None:
            threads -= 1
            continue
        pair, result = told
        outcome.unasked -= 1
        match result:
            case Verdict():
                notebook.add(result)
                in_a_row = 0
            case InputError():
                outcome.failures[pair.number] = str(result)
                in_a_row += 1
                if isinstance(result, JudgeUnusable):
                    outcome.stopped = outcome.stopped or str(result)
                elif in_a_row == MOST_FAILURES_IN_A_ROW:
                    outcome.stopped = outcome.stopped or f"{in_a_row} pairs in a row without a verdict"
            case _:
                raise result
        if outcome.stopped:
            given_up.set()
        on_progress()
