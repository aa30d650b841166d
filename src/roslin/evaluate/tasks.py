"""The seven tasks of the published table: where their data is, and how a row becomes a question.

Prompts, choices and answers equal those of the LM Evaluation Harness 0.4.13 (its files `lm_eval/tasks/*`, from which
the hub names, splits and metrics are); the tests compare every one.

Of the two ways of asking, `raw` shows a model the pair as it stands here, and `instruct` puts the context into the
model's own prompt as an instruction, after which the response starts with the continuation: `as_instruction`.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from roslin.errors import UsageError
from roslin.evaluate.cells import BadRow, CellFault, Cells, Row
from roslin.evaluate.question import Choice, Question
from roslin.evaluate.scores import Metric

DELIMITER = " "
"""What the harness puts between a context and its continuation (`target_delimiter`)."""


@dataclass(frozen=True)
class Layout:
    """One way in which a task's rows are written: the columns that it needs, and how they become a question."""

    columns: tuple[str, ...]
    build: Callable[[Cells], Question]
    note: str = ""
    """In what its questions differ from the hub's."""


@dataclass(frozen=True)
class Task:
    """A benchmark of the table."""

    name: str
    metric: Metric
    """The one of the published table."""
    path: str
    """The data's name on the hub."""
    config: str | None
    """The part of it that is meant, where the hub has several."""
    split: str
    """What is asked."""
    size: int
    """How many questions the whole split has."""
    layouts: tuple[Layout, ...]
    """The hub's first; others hold the same in other columns."""
    file_names: tuple[str, ...]
    """What files of its data may be called, without `_<split>` and suffix."""
    shots_split: str = "train"
    """Where examples for few-shot prompts are drawn from."""

    @property
    def draws_around_itself(self) -> bool:
        """Whether an example equal to the question itself is passed over, for which one more is drawn.

        The harness does so where a task names no test split (its `fewshot_split`, which no task here names either, is
        then equal to it).
        """
        return self.split != "test"

    def question(self, row: Row) -> Question:
        """The question that a row holds. Raises BadRow with all that is wrong with it."""
        cells = Cells(row)
        question = self.layout(row).build(cells)
        if cells.faults:
            raise BadRow(cells.faults)
        return question

    def layout(self, row: Row) -> Layout:
        """The way in which a row is written. Raises BadRow where columns are missing for each."""
        for layout in self.layouts:
            if row.keys() >= set(layout.columns):
                return layout
        ways = " or ".join(f"({', '.join(layout.columns)})" for layout in self.layouts)
        raise BadRow([CellFault("columns", list(row), ways)])


@dataclass(frozen=True)
class Document:
    """A question beside the row it was read from: two rows may ask the same and still differ."""

    row: Row
    question: Question


def as_instruction(question: Question) -> Question:
    """The question as `instruct` asks it: its contexts are instructions, its continuations the start of a response.

    A response follows the prompt's last newline, so the delimiter before it goes, as in the harness with
    `--apply_chat_template`. What acc_norm divides by stays.
    """
    choices = (replace(choice, continuation=choice.continuation.removeprefix(DELIMITER)) for choice in question.choices)
    return replace(question, choices=tuple(choices))


def find_tasks(names: Sequence[str]) -> list[Task]:
    """The tasks of these names, in their order. Raises UsageError that says which do not exist, and which do."""
    if unknown := [name for name in names if name not in TASKS]:
        raise UsageError(f"No such task: {', '.join(unknown)}. The tasks are {', '.join(TASKS)}.")
    return [TASKS[name] for name in names]


def _question(context: str, endings: Sequence[str], gold: int, cluster: str = "") -> Question:
    choices = (Choice(context, DELIMITER + ending, len(ending)) for ending in endings)
    return Question(tuple(choices), gold, cluster)


def _openbookqa(cells: Cells) -> Question:
    texts, labels = cells.labelled_texts("choices")
    return _question(cells.text("question_stem"), texts, cells.one_of("answerKey", labels, strip=True))


def _openbookqa_flat(cells: Cells) -> Question:
    texts = cells.texts("choices")
    return _question(cells.text("question_stem"), texts, cells.place("gold", len(texts)))


def _arc(cells: Cells) -> Question:
    texts, labels = cells.labelled_texts("choices")
    return _question(_asked(cells.text("question")), texts, cells.one_of("answerKey", labels))


def _arc_flat(cells: Cells) -> Question:
    texts = cells.texts("choices")
    return _question(_asked(cells.text("question")), texts, cells.place("gold", len(texts)))


def _piqa(cells: Cells) -> Question:
    solutions = [cells.text("sol1"), cells.text("sol2")]
    return _question(_asked(cells.text("goal")), solutions, cells.place("label", 2))


def _asked(question: str) -> str:
    return f"Question: {question}\nAnswer:"


def _boolq(cells: Cells) -> Question:
    return _boolq_question(cells, cells.place("label", 2))


def _boolq_flat(cells: Cells) -> Question:
    """The layout of BoolQ's own files, whose passages lack what the hub's start with: their title and ` -- `.

    Scores on them are of slightly other prompts than the published table's.
    """
    return _boolq_question(cells, int(cells.yes_or_no("answer")))


def _boolq_question(cells: Cells, gold: int) -> Question:
    """Questions of one passage belong together."""
    passage = cells.text("passage")
    context = f"{passage}\nQuestion: {cells.text('question')}?\nAnswer:"
    cluster = hashlib.sha256(passage.encode()).hexdigest()[:16]
    return _question(context, ("no", "yes"), gold, cluster)


def _winogrande(cells: Cells) -> Question:
    """The options stand in the contexts, and what follows the blank is the continuation of both."""
    before, blank, after = cells.text("sentence").partition("_")
    if not blank:
        cells.note("sentence", "a text with a blank, written _")
    contexts = [before + cells.text("option1"), before + cells.text("option2")]
    gold = cells.one_of("answer", ("1", "2"))
    continuation = DELIMITER + after.strip()
    return Question(tuple(Choice(context, continuation, len(context)) for context in contexts), gold)


def _hellaswag(cells: Cells) -> Question:
    scene = f"{cells.text('activity_label')}: {cells.text('ctx_a')} {cells.text('ctx_b').capitalize()}"
    endings = [_without_brackets(ending) for ending in cells.texts("endings")]
    return _question(_without_brackets(scene), endings, cells.place("label", len(endings)))


_BRACKETS = re.compile(r"\[.*?\]")


def _without_brackets(text: str) -> str:
    """Without WikiHow's marks: a title's becomes a full stop, others go, and each pair of blanks becomes one."""
    return _BRACKETS.sub("", text.strip().replace(" [title]", ". ")).replace("  ", " ")


_ARC_LAYOUTS = (
    Layout(("question", "choices", "answerKey"), _arc),
    Layout(("question", "choices", "gold"), _arc_flat),
)
_OPENBOOKQA_LAYOUTS = (
    Layout(("question_stem", "choices", "answerKey"), _openbookqa),
    Layout(("question_stem", "choices", "gold"), _openbookqa_flat),
)
_WINOGRANDE_LAYOUTS = (Layout(("sentence", "option1", "option2", "answer"), _winogrande),)
_HELLASWAG_LAYOUTS = (Layout(("activity_label", "ctx_a", "ctx_b", "endings", "label"), _hellaswag),)
_PIQA_LAYOUTS = (Layout(("goal", "sol1", "sol2", "label"), _piqa),)
_BOOLQ_LAYOUTS = (
    Layout(("passage", "question", "label"), _boolq),
    Layout(
        ("passage", "question", "answer"),
        _boolq_flat,
        note="its passages lack the titles that the hub's begin with: scores may differ slightly from the published.",
    ),
)

_ALL = (
    Task("openbookqa", "acc_norm", "allenai/openbookqa", "main", "test", 500, _OPENBOOKQA_LAYOUTS, ("openbookqa",)),
    Task("arc_easy", "acc_norm", "allenai/ai2_arc", "ARC-Easy", "test", 2376, _ARC_LAYOUTS, ("arc_easy",)),
    Task(
        "winogrande",
        "acc",
        "allenai/winogrande",
        "winogrande_xl",
        "validation",
        1267,
        _WINOGRANDE_LAYOUTS,
        ("winogrande", "winogrande_xl"),
    ),
    Task("hellaswag", "acc_norm", "Rowan/hellaswag", None, "validation", 10_042, _HELLASWAG_LAYOUTS, ("hellaswag",)),
    Task(
        "arc_challenge", "acc_norm", "allenai/ai2_arc", "ARC-Challenge", "test", 1172, _ARC_LAYOUTS, ("arc_challenge",)
    ),
    Task("piqa", "acc_norm", "baber/piqa", None, "validation", 1838, _PIQA_LAYOUTS, ("piqa",)),
    Task("boolq", "acc", "aps/super_glue", "boolq", "validation", 3270, _BOOLQ_LAYOUTS, ("boolq",)),
)

TASKS: Mapping[str, Task] = {task.name: task for task in _ALL}
"""By name, in the order of the published table's columns."""
