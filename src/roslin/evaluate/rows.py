"""Reading the rows of benchmarks: from a folder of files, or from the hub."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from roslin.errors import InputError
from roslin.evaluate.cells import BadRow, CellFault
from roslin.evaluate.hub_rows import hub_name, hub_rows
from roslin.evaluate.question import Question
from roslin.evaluate.shots import SEED, with_shots
from roslin.evaluate.tasks import Document, Task
from roslin.records.json_rows import Row as FileRow
from roslin.records.sources import COLUMN_SUFFIXES, COMPRESSIONS, LINE_SUFFIXES, TABLE_SUFFIXES, Source

SHOWN_FAULTS = 20


@dataclass(frozen=True)
class TaskData:
    """The questions that a task asks, and what must be said of where they are from."""

    questions: list[Question]
    note: str = ""


def load_task(task: Task, data: Path | None = None, *, shots: int = 0, seed: int = SEED) -> TaskData:
    """The questions that a task asks, in the order of its data, each after `shots` examples drawn with `seed`.

    `data` is a folder of files named `<task>_<split>` (such as arc_easy_test.jsonl); None reads from the hub. Fewer or
    more questions than `task.size` are no error here: compare the numbers where it matters. A choice without text is a
    fault of a file; in the hub's own data it is asked all the same, as the harness does.

    Raises InputError with every fault of the rows, or where there is no such data or too few examples; MachineError
    where the hub cannot be reached or `datasets` is not installed.
    """
    documents = load_documents(task, task.split, data, scored=data is not None)
    note = next((task.layout(document.row).note for document in documents), "")
    if not shots:
        return TaskData([document.question for document in documents], note)
    pool = load_documents(task, task.shots_split, data)
    return TaskData(with_shots(task, documents, pool, shots, seed=seed), note)


def load_questions(task: Task, data: Path | None = None, *, shots: int = 0, seed: int = SEED) -> list[Question]:
    """The questions alone; see `load_task`."""
    return load_task(task, data, shots=shots, seed=seed).questions


def load_documents(task: Task, split: str, data: Path | None = None, *, scored: bool = False) -> list[Document]:
    """Every row of a split with the question it holds; `scored` asks that each choice can be scored by acc_norm.

    Raises as `load_task` does.
    """
    if data is None:
        return _documents(task, hub_name(task, split), hub_rows(task, split), scored)
    source = _find_file(task, split, data)
    return _documents(task, source.name, source.rows(), scored)


def _documents(task: Task, name: str, rows: Iterator[FileRow], scored: bool) -> list[Document]:
    documents: list[Document] = []
    faults = _Faults(task, name)
    for row in rows:
        faults.add_form(row)
        if row.value is None:
            continue
        try:
            question = task.question(row.value)
        except BadRow as error:
            faults.add(row.line, error.faults)
            continue
        documents.append(Document(row.value, question))
        if scored:
            faults.add(row.line, _empty_choices(question))
    faults.raise_any()
    return documents


def _empty_choices(question: Question) -> list[CellFault]:
    return [
        CellFault(
            f"choice {place}", choice.continuation.strip(), "a text that is not empty: acc_norm divides by its length"
        )
        for place, choice in enumerate(question.choices, 1)
        if not choice.characters
    ]


class _Faults:
    """The faults of one file; rows that lack the same columns are told once."""

    def __init__(self, task: Task, name: str) -> None:
        self._task = task
        self._name = name
        self._told: list[str] = []
        self._columns: dict[str, tuple[int, int]] = {}
        """For each set of wrong columns, the first row that has it and how many do."""

    def add(self, line: int, faults: Sequence[CellFault]) -> None:
        for fault in faults:
            if fault.column == "columns":
                first, count = self._columns.get(str(fault), (line, 0))
                self._columns[str(fault)] = (first, count + 1)
            else:
                self._told.append(f"{self._name}:{line}: {fault}")

    def add_form(self, row: FileRow) -> None:
        for fault in row.faults:
            self._told.append(str(fault.at(self._name, row.line)))

    def raise_any(self) -> None:
        told = [
            f"{self._name}:{first}: {fault}" + (f" The same holds of {count - 1:,} more." if count > 1 else "")
            for fault, (first, count) in self._columns.items()
        ] + self._told
        if not told:
            return
        lines = [f"{self._task.name}: {len(told):,} fault{'s' if len(told) > 1 else ''} in the data:"]
        lines += told[:SHOWN_FAULTS]
        if len(told) > SHOWN_FAULTS:
            lines.append(f"… and {len(told) - SHOWN_FAULTS:,} more.")
        raise InputError("\n".join(lines))


def _find_file(task: Task, split: str, folder: Path) -> Source:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; --data names the folder that holds the files of the benchmarks.")
    names = {f"{name}_{split}{suffix}" for name in task.file_names for suffix in _SUFFIXES}
    found = sorted(path for path in folder.iterdir() if path.name in names and path.is_file())
    if len(found) == 1:
        return Source(str(found[0]), found[0])
    wanted = " or ".join(f"{name}_{split}.jsonl" for name in task.file_names)
    if found:
        raise InputError(
            f"{task.name}: {folder} holds its data more than once ({', '.join(path.name for path in found)}). "
            "Keep one of the files."
        )
    held = sorted(path.name for path in folder.iterdir())
    raise InputError(
        f"{task.name}: {folder} holds no {wanted} (nor one in {', '.join(_FORMATS[1:])}). "
        f"It holds {', '.join(held[:SHOWN_FAULTS]) or 'nothing'}{' …' if len(held) > SHOWN_FAULTS else ''}."
    )


_FORMATS = LINE_SUFFIXES + TABLE_SUFFIXES + COLUMN_SUFFIXES
_SUFFIXES = [*_FORMATS, *(kind + packed for kind in LINE_SUFFIXES + TABLE_SUFFIXES for packed in COMPRESSIONS)]
