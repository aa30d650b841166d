"""Contamination: which questions of the benchmarks stand, in part or whole, in the records that a model is tuned on.

The measure is that of GPT-3 (Brown et al. 2020, appendix C) and of the LM Evaluation Harness (lm_eval 0.4.13, its
`decontamination`): 13 words in a row that both have, in lower case and without punctuation. The punctuation that the
harness knows is ASCII's; here it is Unicode's.

A question is looked for as it reads with its right answer, without the words `Question:` and `Answer:` of the prompt
(winogrande's sentence with its blank filled; boolq's passage, question and answer). A record is read as its
instruction, context and response, one behind the other. A question of fewer than 13 words is counted apart: it is
touched where all of its words occur in a record, in a row. The fewer they are, the less that means.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np

from roslin.evaluate.question import Question
from roslin.evaluate.word_runs import RunIndex, Shared, words_of
from roslin.records import Record

WORDS = 13
WORST = 10
"""Examples that a report gives of each task."""
_RECORDS_A_BLOCK = 2048


@dataclass(frozen=True)
class Overlap:
    """A question that a record holds words of."""

    key: str
    """The question's hash."""
    words: str
    """A run of words that both have: the first, where there are several."""
    record: int
    """The record's number, from 1, in the order given: of all, the one that shares most with the question."""
    share: float
    """Which part of the question's runs is in any of the records."""


@dataclass(frozen=True)
class TaskContamination:
    """What records hold of one task."""

    questions: int
    """Those of WORDS words or more."""
    touched: int
    """Those of them that share WORDS words in a row with a record."""
    short_questions: int
    """Those of fewer words."""
    short_touched: int
    """Those of them that stand whole in a record."""
    touched_keys: frozenset[str]
    """The hashes of all touched questions, short ones included: to score a model on the others."""
    worst: Sequence[Overlap]
    """The questions of WORDS words or more that share the largest parts of theirs, WORST at most."""

    @property
    def share(self) -> float:
        """The touched part of the questions that have WORDS words or more; 0 where there are none."""
        return self.touched / self.questions if self.questions else 0.0

    def as_object(self) -> dict[str, Any]:
        """The findings as JSON writes them."""
        return {
            "questions": self.questions,
            "touched": self.touched,
            "share": self.share,
            "short_questions": self.short_questions,
            "short_touched": self.short_touched,
            "worst": [asdict(overlap) for overlap in self.worst],
        }


@dataclass(frozen=True)
class ContaminationReport:
    """What records hold of each task, by its name."""

    records: int
    tasks: Mapping[str, TaskContamination]

    def as_object(self) -> dict[str, Any]:
        """The report as JSON writes it."""
        return {
            "words": WORDS,
            "records": self.records,
            "tasks": {name: task.as_object() for name, task in self.tasks.items()},
        }


def contamination(
    records: Iterable[Record], questions_by_task: Mapping[str, Sequence[Question]]
) -> ContaminationReport:
    """What `records` hold of the questions (zero-shot ones: examples before them would be looked for too).

    The questions are held in memory as an index; the records pass by in blocks, so that they may be any number.
    """
    questions = [question for asked in questions_by_task.values() for question in asked]
    texts = [words_of(written_out(question)) for question in questions]
    found = _Found(RunIndex(texts, WORDS))
    count = 0
    for block in _blocks(records):
        found.add([words_of(f"{one.instruction} {one.context} {one.response}") for one in block], count)
        count += len(block)
    tasks = {}
    first = 0
    for name, asked in questions_by_task.items():
        tasks[name] = _of_task(found, questions, texts, range(first, first + len(asked)))
        first += len(asked)
    return ContaminationReport(count, tasks)


_FORM = re.compile(r"^Question: |\nAnswer:\Z", re.MULTILINE)


def written_out(question: Question) -> str:
    """A question with its right answer, as a text would have it: without the words of the prompt's form."""
    right = question.choices[question.gold]
    return _FORM.sub("", right.context) + right.continuation


def _blocks(records: Iterable[Record]) -> Iterator[list[Record]]:
    rest = iter(records)
    while block := list(islice(rest, _RECORDS_A_BLOCK)):
        yield block


class _Found:
    """What of each indexed question has been seen in records so far."""

    def __init__(self, index: RunIndex) -> None:
        self._index = index
        self.runs = np.maximum(index.sizes - WORDS + 1, 1)
        """Runs of each question."""
        self._first = np.cumsum(self.runs) - self.runs
        self._seen = np.zeros(int(self.runs.sum()), dtype=bool)
        self._most: dict[int, tuple[int, int, int]] = {}
        """For each touched question: of the record that shares most runs, how many, its number, and the first run."""

    def add(self, texts: Sequence[Sequence[str]], before: int) -> None:
        """Note what a block of records shares, `before` of which have passed."""
        shared = self._index.shared(texts)
        self._seen[self._first[shared.indexed_H] + shared.start_H] = True
        for record, question, count, start in _pairs(shared):
            if count > self._most.get(question, (0, 0, 0))[0]:
                self._most[question] = (count, before + record + 1, start)

    def touched(self, question: int) -> bool:
        """Whether a record shares a run with a question."""
        return question in self._most

    def share(self, question: int) -> float:
        """Which part of a question's runs has been seen."""
        first, runs = int(self._first[question]), int(self.runs[question])
        return float(self._seen[first : first + runs].mean())

    def overlap(self, question: int, key: str, words: Sequence[str]) -> Overlap:
        """A touched question, with the record that shares most with it."""
        _, record, start = self._most[question]
        return Overlap(key, " ".join(words[start : start + WORDS]), record, self.share(question))


def _pairs(shared: Shared) -> Iterator[tuple[int, int, int, int]]:
    """Record, question, how many of its runs they share, and the first of these; in the order of the records."""
    order = np.lexsort((shared.start_H, shared.indexed_H, shared.streamed_H))
    runs = np.stack([shared.streamed_H, shared.indexed_H, shared.start_H], axis=1)[order]
    runs = np.unique(runs, axis=0)  # a record may hold a run twice
    _, starts, counts = np.unique(runs[:, :2], axis=0, return_index=True, return_counts=True)
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        record, question, first = runs[start].tolist()
        yield record, question, count, first


def _of_task(
    found: _Found, questions: Sequence[Question], texts: Sequence[Sequence[str]], places: range
) -> TaskContamination:
    whole = [place for place in places if len(texts[place]) >= WORDS]
    short = [place for place in places if len(texts[place]) < WORDS]
    touched = sorted(filter(found.touched, whole), key=found.share, reverse=True)
    short_touched = [place for place in short if found.touched(place)]
    return TaskContamination(
        questions=len(whole),
        touched=len(touched),
        short_questions=len(short),
        short_touched=len(short_touched),
        touched_keys=frozenset(questions[place].key for place in (*touched, *short_touched)),
        worst=[found.overlap(place, questions[place].key, texts[place]) for place in touched[:WORST]],
    )
