"""The store of results: one row a choice, in one SQLite file, so that nothing is ever scored twice.

Rows are only added. A run is known by hashes of all that its numbers depend on; what a broken-off one has scored, the
next one of the same hashes finds.
"""

import hashlib
import math
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import orjson

from roslin.errors import InputError, MachineError
from roslin.evaluate.scores import Metric, ModelScores, Profile, TaskScores
from roslin.evaluate.tasks import TASKS

if TYPE_CHECKING:
    from roslin.evaluate.question import Question
    from roslin.evaluate.scorer import ChoiceScore

DEFAULT_STORE = Path("roslin-results.sqlite")
FORMAT = 1
NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
PATIENCE_S = 60
"""How long to wait for another process that writes to the same file."""

TABLES = """
CREATE TABLE IF NOT EXISTS run (
    id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL, profile TEXT NOT NULL, shots INTEGER NOT NULL,
    dtype TEXT NOT NULL, code TEXT NOT NULL, begun TEXT NOT NULL, UNIQUE (fingerprint, profile, shots, dtype, code)
);
CREATE TABLE IF NOT EXISTS data (id TEXT PRIMARY KEY, questions BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS asked (
    run INTEGER NOT NULL REFERENCES run, name TEXT NOT NULL, task TEXT NOT NULL, data TEXT NOT NULL REFERENCES data,
    begun TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS choice (
    run INTEGER NOT NULL REFERENCES run, task TEXT NOT NULL, question TEXT NOT NULL, choice INTEGER NOT NULL,
    log_likelihood REAL NOT NULL, tokens INTEGER NOT NULL, characters INTEGER NOT NULL, truncated INTEGER NOT NULL,
    PRIMARY KEY (run, task, question, choice)
) WITHOUT ROWID;
"""

RUNS = """
SELECT id, fingerprint, name, profile, shots, dtype FROM run JOIN asked ON run = id
GROUP BY id HAVING asked.rowid = max(asked.rowid) ORDER BY asked.rowid
"""
"""Every run that was asked anything, with the name that it got last, in the order in which they were asked last."""


@dataclass(frozen=True)
class Identity:
    """All that the numbers of a run depend on, but for the questions, which have hashes of their own."""

    fingerprint: str
    """Hash of weights, configuration and tokenizer."""
    profile: Profile
    shots: int
    dtype: str
    code: str
    """Version of the code that scores."""


@dataclass(frozen=True)
class Asked:
    """A question of a task's data: what is needed to judge its scores."""

    key: str
    gold: int
    cluster: str


class Store:
    """Results of any number of runs. Several processes may write to one file."""

    def __init__(self, path: Path) -> None:
        """The store at `path`, made if there is none. Raises InputError for a file that is no such store."""
        self.path = path
        with self._open() as database:
            # In this order: another process may make the same tables meanwhile, and their version with them.
            empty = not database.execute("SELECT 1 FROM sqlite_master").fetchone()
            [version] = database.execute("PRAGMA user_version").fetchone()
            if empty and version == 0:
                database.executescript(f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {FORMAT}; COMMIT;")
            elif version != FORMAT:
                raise InputError(f"{path} is no store of results that this Roslin reads: name another file.")

    @classmethod
    def open(cls, path: Path) -> Self:
        """The store at `path`. Raises InputError where there is none."""
        if not path.is_file():
            raise InputError(f"{path}: no results here. `roslin eval MODEL` writes them.")
        return cls(path)

    def run(self, identity: Identity, name: str) -> "Run":
        """The run of this identity, new or begun before, and what its model is called in a table from now on."""
        fields = astuple(identity)
        with self._open() as database:
            database.execute(f"INSERT OR IGNORE INTO run VALUES (NULL{', ?' * len(fields)}, ?)", (*fields, _now()))
            where = "fingerprint = ? AND profile = ? AND shots = ? AND dtype = ? AND code = ?"
            [number] = database.execute(f"SELECT id FROM run WHERE {where}", fields).fetchone()
        return Run(self, number, name)

    def scores(self, metric: Metric | None = None) -> list[ModelScores]:
        """What every model scored by each task's own metric, or by `metric`; no model is needed for that.

        Of the runs under one name, those of the weights that were asked last count, and of these the one that answered
        most, the latest of several. Questions that a run has not come to are left out of its tasks, and so are tasks
        that this Roslin does not know.
        """
        found: dict[tuple[object, ...], tuple[str, ModelScores]] = {}
        with self._open() as database:
            for number, weights, name, profile, shots, dtype in database.execute(RUNS).fetchall():
                tasks = {scores.task: scores for scores in _task_scores(database, number, metric)}
                before = found.get((name, profile, shots, dtype))
                fewer = before and before[0] == weights and _answered(tasks) < _answered(before[1].tasks)
                if tasks and not fewer:
                    found[name, profile, shots, dtype] = weights, ModelScores(name, profile, shots, dtype, tasks)
        return [scores for _, scores in found.values()]

    def scores_of(self, fingerprint: str) -> list[ModelScores]:
        """What exactly these weights scored by each task's own metric, under each profile and number of shots.

        Of several runs under one of these, the one that answered most counts, the latest of equal ones.
        """
        found: dict[tuple[object, ...], ModelScores] = {}
        with self._open() as database:
            for number, weights, name, profile, shots, dtype in database.execute(RUNS).fetchall():
                if weights != fingerprint:
                    continue
                tasks = {scores.task: scores for scores in _task_scores(database, number, None)}
                before = found.get((profile, shots))
                if tasks and not (before and _answered(tasks) < _answered(before.tasks)):
                    found[profile, shots] = ModelScores(name, profile, shots, dtype, tasks)
        return list(found.values())

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=PATIENCE_S)) as database, database:
                yield database
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) in NO_ROOM:
                raise MachineError(f"{self.path}: cannot be written ({error}); make room and run it again.") from None
            raise InputError(f"{self.path}: cannot be used as a store of results ({error}).") from None


class Run:
    """One model's results under one way of asking."""

    def __init__(self, store: Store, number: int, name: str) -> None:
        """Run `number` of `store`, of the model called `name`."""
        self._store = store
        self._number = number
        self._name = name

    def ask(self, task: str, questions: "Sequence[Question]") -> list[int]:
        """Note what a task asks, and say which of the questions have no scores yet; of equal ones the first."""
        asked = [(question.key, question.gold, question.cluster) for question in questions]
        packed = zlib.compress(orjson.dumps(asked))
        data = hashlib.sha256(packed).hexdigest()[:32]
        with self._store._open() as database:
            database.execute("INSERT OR IGNORE INTO data VALUES (?, ?)", (data, packed))
            database.execute("INSERT INTO asked VALUES (?, ?, ?, ?, ?)", (self._number, self._name, task, data, _now()))
            which = "SELECT DISTINCT question FROM choice WHERE run = ? AND task = ?"
            known = {key for (key,) in database.execute(which, (self._number, task))}
        firsts = {key: number for number, (key, *_) in reversed(list(enumerate(asked)))}
        return sorted(number for key, number in firsts.items() if key not in known)

    def add(self, task: str, scored: "Iterable[tuple[Question, Sequence[ChoiceScore]]]") -> None:
        """Keep the scores of some questions: all of them or, if it is broken off or one is no number, none."""
        rows = [
            (self._number, task, question.key, place, score.log_likelihood, score.tokens, choice.characters, truncated)
            for question, scores in scored
            for place, (choice, score) in enumerate(zip(question.choices, scores, strict=True))
            for truncated in (int(score.truncated),)
        ]
        with self._store._open() as database:
            # Not OR IGNORE, which would also leave out numbers that are none, and with them choices of a question.
            database.executemany("INSERT INTO choice VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)

    def scores(self, task: str, metric: Metric) -> TaskScores:
        """What the run scored in one task, of the questions that it asked last."""
        with self._store._open() as database:
            *_, questions = _asked(database, self._number, task)
            return _judged(task, metric, questions, _picked(database, self._number, task, metric))

    def truncated(self, task: str) -> int:
        """How many questions of a task had the beginning of a context cut off."""
        which = "SELECT count(DISTINCT question) FROM choice WHERE run = ? AND task = ? AND truncated"
        with self._store._open() as database:
            [count] = database.execute(which, (self._number, task)).fetchone()
        return int(count)


def _task_scores(database: sqlite3.Connection, run: int, metric: Metric | None) -> Iterator[TaskScores]:
    for (task,) in database.execute("SELECT DISTINCT task FROM asked WHERE run = ?", (run,)).fetchall():
        if task in TASKS:
            by = metric or TASKS[task].metric
            questions = _whole(_asked(database, run, task))
            scores = _judged(task, by, questions, _picked(database, run, task, by))
            if len(scores.keys):
                yield scores


def _asked(database: sqlite3.Connection, run: int, task: str) -> list[list[Asked]]:
    """The questions of each data that a task asked, the last asked at the end."""
    which = "SELECT questions FROM asked JOIN data ON data.id = data WHERE run = ? AND task = ?"
    found = database.execute(f"{which} GROUP BY data ORDER BY max(asked.rowid)", (run, task)).fetchall()
    return [[Asked(*row) for row in orjson.loads(zlib.decompress(packed))] for (packed,) in found]


def _whole(asked: Sequence[list[Asked]]) -> list[Asked]:
    """The questions asked last, or those that they are the beginning of: the first few do not take a run's place."""
    latest = asked[-1]
    return max((each for each in asked if each[: len(latest)] == latest), key=len)


def _judged(task: str, metric: Metric, questions: Sequence[Asked], picked: Mapping[str, int]) -> TaskScores:
    """What was picked of these questions, against what is right; those that have no scores are left out."""
    scored = [question for question in questions if question.key in picked]
    right = np.array([picked[question.key] == question.gold for question in scored], dtype=np.bool_)
    clusters = [question.cluster for question in scored]
    return TaskScores(task, metric, [question.key for question in scored], right, clusters)


def _picked(database: sqlite3.Connection, run: int, task: str, metric: Metric) -> dict[str, int]:
    """The choice that each question's scores are highest for; of equals the first, as in the harness."""
    which = "SELECT question, log_likelihood, characters FROM choice WHERE run = ? AND task = ? ORDER BY 1, choice"
    scores: dict[str, list[float]] = {}
    for key, log_likelihood, characters in database.execute(which, (run, task)):
        scores.setdefault(key, []).append(_by(metric, log_likelihood, characters))
    return {key: int(np.argmax(values)) for key, values in scores.items()}


def _by(metric: Metric, log_likelihood: float, characters: int) -> float:
    """What choices are compared by. One without text is never picked by acc_norm, as in the harness."""
    if metric == "acc":
        return log_likelihood
    return log_likelihood / characters if characters else -math.inf


def _answered(tasks: Mapping[str, TaskScores]) -> int:
    return sum(len(task.keys) for task in tasks.values())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
