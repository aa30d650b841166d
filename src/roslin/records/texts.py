"""The rules for the texts of one record."""

from collections.abc import Sequence

from roslin.records.columns import FIELDS, REQUIRED, Columns, Fields
from roslin.records.finding import Fault
from roslin.records.json_rows import CONTROL, JSON_TYPES, Row
from roslin.records.record import DOLLY_CATEGORIES

_CATEGORIES = frozenset((*DOLLY_CATEGORIES, ""))
SEPARATOR = "\n\n"


class TextRules:
    """Checks rows against the rules; sound ones take a path of a few operations."""

    def __init__(self, columns: Columns, keys: Sequence[str]) -> None:
        """`keys` are texts that no field may hold, because they would end or restart the prompt."""
        self._columns = columns
        self._keys = tuple(keys)

    def judge(self, row: Row) -> tuple[Fields | None, list[Fault]]:
        """The fields of a row where all are texts (missing ones as ""), and all its faults."""
        if not row.faults and (fields := self.sound(row.value)):
            return fields, _NOTHING
        if row.value is None:
            return None, list(row.faults)
        fields, faults = self.examine(row.value)
        return fields, [*row.faults, *faults]

    def sound(self, row: object) -> Fields | None:
        """The fields of a row with nothing to report; None for any other, which `examine` says more about."""
        if type(row) is not dict or not self._columns.plain(row):
            return None
        fields = Fields(
            row.get("instruction", ""), row.get("context", ""), row.get("response", ""), row.get("category", ""), _PLAIN
        )
        for text in fields[:4]:
            if type(text) is not str:
                return None
        joined = SEPARATOR.join(fields[:3])
        if (
            not fields.instruction
            or not fields.response
            or fields.instruction.isspace()
            or fields.response.isspace()
            or fields.category not in _CATEGORIES
            or CONTROL.search(joined)
        ):
            return None
        for key in self._keys:
            if key in joined:
                return None
        return fields

    def examine(self, row: dict[str, object]) -> tuple[Fields | None, list[Fault]]:
        """Every fault of a row, and its fields where all of them are texts (missing ones as "")."""
        values, names, faults = self._columns.read(row)
        for field, value in values.items():
            if value is not None:
                faults += self._text_faults(field, names[field], value)
        texts = [values.get(field) if values.get(field) is not None else "" for field in FIELDS]
        if not all(type(text) is str for text in texts):
            return None, faults
        instruction, context, response, category = map(str, texts)
        return Fields(instruction, context, response, category, names), faults

    def _text_faults(self, field: str, column: str, value: object) -> list[Fault]:
        if type(value) is not str:
            return [_wrong_type(column, value)]
        if field in REQUIRED and not value.strip():
            return [Fault(column, "empty-field", "is empty. Write the text, or remove the record.")]
        faults = [Fault(column, "prompt-key", _prompt_key(key)) for key in self._keys if key in value]
        if found := CONTROL.search(value):
            faults.append(Fault(column, "control-character", _control_character(found[0], found.start())))
        if field == "category" and value not in _CATEGORIES:
            faults.append(Fault(column, "unknown-category", _unknown_category(value)))
        return faults


_NOTHING: list[Fault] = []
_PLAIN = {field: field for field in FIELDS}


def _wrong_type(column: str, value: object) -> Fault:
    kind = JSON_TYPES.get(type(value), type(value).__name__)
    hint = ""
    if isinstance(value, dict) and value:
        hint = f" To read a text inside it: --map {column}.{next(iter(value))}=FIELD."
    return Fault(column, "wrong-type", f"is {kind}, not text. Write it as one text in quotes.{hint}")


def _prompt_key(key: str) -> str:
    return (
        f"holds {key!r}, a key of the prompt, which would end or restart the prompt in training. "
        f"Remove it, or write it otherwise (such as {key.lstrip('# ')!r})."
    )


def _control_character(character: str, place: int) -> str:
    name = f"U+{ord(character):04X}"
    if character == "\r":
        return f"holds a carriage return ({name}) at character {place + 1}. End lines with \\n alone."
    return f"holds the control character {name} at character {place + 1}. Remove it; only newline and tab are allowed."


def _unknown_category(category: str) -> str:
    known = ", ".join(DOLLY_CATEGORIES)
    return f"{category!r} is none of Dolly's categories ({known}). Keep it if it is meant, else mend it."
