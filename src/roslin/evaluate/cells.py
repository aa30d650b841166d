"""The cells of one row of a benchmark's data: read as the type they should have, with every fault noted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Row = Mapping[str, object]

_SHOWN = 80
"""Characters of a faulty value that a message shows."""


@dataclass(frozen=True)
class CellFault:
    """A cell that does not hold what it should."""

    column: str
    value: object
    expected: str

    def __str__(self) -> str:
        """The column, what stands there and what should."""
        shown = repr(self.value)
        if len(shown) > _SHOWN:
            shown = f"{shown[:_SHOWN]}…"
        return f"{self.column}: is {shown}; expected is {self.expected}."


class BadRow(ValueError):
    """A row that is no question; `faults` says all that is wrong with it."""

    def __init__(self, faults: Sequence[CellFault]) -> None:
        super().__init__(" ".join(map(str, faults)))
        self.faults = tuple(faults)


class Cells:
    """Reads the columns of a row. A faulty one is noted and read as empty, so that the rest is looked at too."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self.faults: list[CellFault] = []

    def note(self, column: str, expected: str) -> None:
        """Note that a column does not hold what it should."""
        self.faults.append(CellFault(column, self._row[column], expected))

    def text(self, column: str) -> str:
        """A text, which may be empty."""
        value = self._row[column]
        if isinstance(value, str):
            return value
        self.note(column, "a text")
        return ""

    def texts(self, column: str) -> list[str]:
        """A list of two texts or more."""
        return self._texts(column, self._row[column])

    def labelled_texts(self, column: str) -> tuple[list[str], list[str]]:
        """The texts and the labels of `{"text": [...], "label": [...]}`, as many of the one as of the other."""
        value = self._row[column]
        if not isinstance(value, Mapping) or not {"text", "label"} <= value.keys():
            self.note(column, '{"text": [...], "label": [...]}')
            return [], []
        texts, labels = self._texts(column, value["text"]), self._texts(column, value["label"])
        if texts and labels and len(texts) != len(labels):
            self.note(column, f"as many labels as texts, not {len(labels)} and {len(texts)}")
        return texts, labels

    def _texts(self, column: str, value: object) -> list[str]:
        if isinstance(value, Sequence) and not isinstance(value, str):
            texts = [text for text in value if isinstance(text, str)]
            if len(texts) == len(value) >= 2:
                return texts
        self.note(column, "two texts or more, in a list")
        return []

    def place(self, column: str, count: int) -> int:
        """The place of one of `count` choices, from 0: a whole number or its digits."""
        value = self._row[column]
        if isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count:
            return value
        if count:  # without choices there is no place, and they have been noted already
            self.note(column, f"the place of the right choice, from 0 to {count - 1}")
        return 0

    def one_of(self, column: str, labels: Sequence[str], *, strip: bool = False) -> int:
        """The place of a label among `labels`; `strip` passes over blanks before it."""
        value = self._row[column]
        if isinstance(value, str) and (found := value.lstrip() if strip else value) in labels:
            return labels.index(found)
        if labels:
            self.note(column, f"one of the labels {', '.join(map(repr, labels))}")
        return 0

    def yes_or_no(self, column: str) -> bool:
        """True or false, or (as tables of text write it) its name."""
        value = self._row[column]
        if isinstance(value, str) and value.lower() in ("true", "false"):
            value = value.lower() == "true"
        if isinstance(value, bool):
            return value
        self.note(column, "true or false")
        return False
