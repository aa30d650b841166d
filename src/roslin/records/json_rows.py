"""Rows of JSON files: one object a line, or one array of objects. A broken record never hides the ones after it."""

import io
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from roslin.records.finding import Fault

BLOCK_BYTES = 1 << 20
DEEPEST = 200
"""Levels of objects and arrays in a record. None has so many, and readers give up at depths of their own."""
LONGEST_LINE = 64 << 20
"""Bytes. A longer line is no record but a file of another format; it is reported and passed over."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MARK = Fault(
    "",
    "encoding",
    "The file begins with a byte order mark, which many readers take for text. Save it as UTF-8 without one.",
    True,
)


class Row(NamedTuple):
    """One row of a file: where it starts, what it holds (None if it cannot be read), what is wrong with its form."""

    line: int
    value: Any
    faults: tuple[Fault, ...] = ()
    text: str = ""
    """A row that cannot be read, as it stands in its file, for the file of rejects."""


def lines(stream: io.BufferedIOBase) -> Iterator[tuple[int, bytes]]:
    """Each line with its number, without its newline. One longer than LONGEST_LINE comes as its first part.

    Where reading fails, the whole lines before that place have come.
    """
    number, rest, ahead = 1, bytearray(), b""
    while block := ahead or stream.read1(BLOCK_BYTES):
        ahead = b""
        head, newline, tail = block.rpartition(b"\n")
        if not newline:
            rest += block
            if len(rest) > LONGEST_LINE:
                yield number, bytes(rest)
                rest, ahead = bytearray(), _pass_over_line(stream)
                number += 1
            continue
        for line in (bytes(rest) + head).split(b"\n"):
            yield number, line
            number += 1
        rest = bytearray(tail)
    if rest:
        yield number, bytes(rest)


def _pass_over_line(stream: io.BufferedIOBase) -> bytes:
    while block := stream.read1(BLOCK_BYTES):
        _, newline, behind = block.partition(b"\n")
        if newline:
            return behind
    return b""


def jsonl_rows(stream: io.BufferedIOBase) -> Iterator[Row]:
    """One row for each line that is not blank. Line ends may be LF or CRLF."""
    for number, line in lines(stream):
        if number == 1 and line.startswith(BYTE_ORDER_MARK):
            yield _marked(line[len(BYTE_ORDER_MARK) :])
        elif line and not line.isspace():
            yield parse(line, number)


def _marked(line: bytes) -> Row:
    row = parse(line, 1) if line and not line.isspace() else Row(1, None)
    return Row(1, row.value, (_MARK, *row.faults), row.text)


def parse(text: bytes, line: int) -> Row:
    """One JSON value, with every fault of its form."""
    if len(text) > LONGEST_LINE:
        size = f"longer than {LONGEST_LINE >> 20} MiB"
        fault = Fault("", "json", f"The line is {size} and was passed over. Write one record a line.")
        return Row(line, None, (fault,), text[:200].decode("utf-8", "replace"))
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return _broken(text, line, str(error))
    if type(value) is not dict:
        return Row(line, None, (_not_an_object(value),), text.decode())
    kinds = list(map(type, value.values()))
    if kinds.count(str) < len(kinds) and _is_too_deep(value):
        return Row(line, None, (_TOO_DEEP,), text.decode())
    if _may_repeat_keys(text, kinds) and (repeated := _repeated_keys(text)):
        return Row(line, value, tuple(_repeated(key) for key in repeated))
    return Row(line, value)


def _is_too_deep(value: dict[str, Any]) -> bool:
    level: list[Any] = [value]
    depth = 0
    while level and depth < DEEPEST:
        inside = (inner for held in level for inner in (held.values() if type(held) is dict else held))
        level = [inner for inner in inside if type(inner) in (dict, list)]
        depth += 1
    return bool(level)


_TOO_DEEP = Fault(
    "", "json", f"The record is nested more than {DEEPEST} levels deep. Flatten it, or remove the field that is deep."
)


def _not_an_object(value: object) -> Fault:
    kind = JSON_TYPES.get(type(value), type(value).__name__)
    return Fault("", "wrong-type", f'A record is an object such as {{"instruction": …, "response": …}}, not {kind}.')


JSON_TYPES = {
    dict: "an object",
    list: "an array",
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _may_repeat_keys(text: bytes, kinds: list[type]) -> bool:
    """Whether a second look is worth its time: an object of such values has two quotes a key and two a text.

    A repeated key or an object inside adds quotes; only a backslash that is itself escaped could hide them.
    """
    expected = 2 * len(kinds) + 2 * kinds.count(str)
    return text.count(b'"') - text.count(b'\\"') != expected or b'\\\\"' in text


def _repeated_keys(text: bytes) -> list[str]:
    repeated: list[str] = []

    def gather(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        found = dict(pairs)
        if len(found) != len(keys):
            repeated.extend(key for key in found if keys.count(key) > 1)
        return found

    json.loads(text, object_pairs_hook=gather)
    return repeated


def _repeated(key: str) -> Fault:
    return Fault(
        key, "json", "stands more than once in the record, and readers disagree about which one counts. Keep one."
    )


def _broken(text: bytes, line: int, reason: str) -> Row:
    """Say precisely why a text is not JSON; what can still be read is read, so that its other faults are found too."""
    shown = text.decode("utf-8", "backslashreplace").rstrip("\r")
    bad_byte = _bad_byte(text)
    reason = _placed(reason, line)
    try:
        value = json.loads(text.decode("utf-8", "surrogateescape"), strict=False)
    except RecursionError:
        return Row(line, None, (_TOO_DEEP,), shown)
    except ValueError:
        faults = (Fault("", "encoding", bad_byte), _not_json(text, reason)) if bad_byte else (_not_json(text, reason),)
        return Row(line, None, faults, shown)
    if type(value) is not dict:
        return Row(line, None, (_not_an_object(value),), shown)
    if _is_too_deep(value):
        return Row(line, None, (_TOO_DEEP,), shown)
    whose = [key for key, held in value.items() if _is_unfit(key) or _is_unfit(held)]
    unfit = [Fault(_mended(key), "encoding", bad_byte or _HALF_PAIR) for key in whose]
    form = tuple(unfit) or _lenient_faults(text, value, reason)
    return Row(line, {_mended(key): _mended(held) for key, held in value.items()}, form, shown)


def _bad_byte(text: bytes) -> str:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        byte, column = text[error.start], error.start + 1
        return f"Byte 0x{byte:02x} at column {column} of the line is not UTF-8. Save the file as UTF-8."
    return ""


def _lenient_faults(text: bytes, value: dict[str, Any], reason: str) -> tuple[Fault, ...]:
    """Python's reader takes bare control characters and NaN; orjson, rightly, does not."""
    if any(type(text) is str and CONTROL.search(text) for text in value.values()):
        return ()  # reported as control-character, with its field, when the texts are checked
    if "control character" in reason:
        return (Fault("", "json", "Broken JSON: a tab or line break stands bare inside a text. Write it \\t or \\n."),)
    return (_not_json(text, reason),)


CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Every control character of Unicode but tab and newline."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_HALF_PAIR = (
    "holds half of a surrogate pair (such as \\ud83d alone), which is no character. Write the whole pair, or remove it."
)


def _is_unfit(value: Any) -> bool:
    """Whether a text, or one inside an array or object, holds what is no character."""
    if type(value) is str:
        return bool(_SURROGATE.search(value))
    return bool(_mended(value) != value)


def _mended(value: Any) -> Any:
    """The same with texts that can be encoded, so that the rest of the check can go on."""
    if type(value) is str:
        return _SURROGATE.sub("\ufffd", value)
    if type(value) is list:
        return [_mended(held) for held in value]
    if type(value) is dict:
        return {_mended(key): _mended(held) for key, held in value.items()}
    return value


def _placed(reason: str, line: int) -> str:
    """The parser's reason with its place counted in the file, not in the record."""
    found = re.search(r": line (\d+) column (\d+) \(char \d+\)$", reason)
    if not found:
        return reason
    inside, column = int(found[1]), found[2]
    where = f"at column {column}" if inside == 1 else f"at line {line + inside - 1}, column {column}"
    return f"{reason[: found.start()]} {where}"


_TWO_OBJECTS = re.compile(rb"\}\s*+(?:,\s*+)?\{")
"""Possessive, as below: a long run of blanks is passed once, not once from each of its places."""


def _not_json(text: bytes, reason: str) -> Fault:
    if _TWO_OBJECTS.search(text):
        return Fault("", "json", f"Broken JSON ({reason}). Write one record a line: several seem to stand here.")
    return Fault("", "json", f"Broken JSON ({reason}). Mend the quotes, commas and braces, or remove the record.")


def object_rows(content: bytes) -> Iterator[Row]:
    """The only row of a file that is one value over several lines; the lines as rows where it is not."""
    marked = content.startswith(BYTE_ORDER_MARK)
    row = parse(content.removeprefix(BYTE_ORDER_MARK), 1)
    if row.value is None and row.faults[0].code == "json":
        yield from jsonl_rows(io.BytesIO(content))
        return
    if row.value and "instruction" not in row.value and (inside := _lists_of_objects(row.value)):
        message = f"The file is one object, and its records seem to stand in {inside[0]!r}. Write that array alone."
        row = Row(1, None, (Fault("", "wrong-type", message),), row.text)
    yield row._replace(faults=(_MARK, *row.faults)) if marked else row


def _lists_of_objects(value: dict[str, Any]) -> list[str]:
    return [key for key, held in value.items() if type(held) is list and held and type(held[0]) is dict]


def array_rows(content: bytes) -> Iterator[Row]:
    """Each element of an array as a row; after a broken one, reading goes on at the next `{`.

    The text of the whole file is held in memory, but only one of its elements at a time as an object.
    """
    if content.startswith(BYTE_ORDER_MARK):
        yield Row(1, None, (_MARK,))
    counter = _LineCounter(content)
    position, closed = content.index(b"[") + 1, False
    while (start := _end_of(_BETWEEN, content, position)) < len(content):
        closed = content[start : start + 1] == b"]"
        if closed:
            if not _REST_IS_BLANK.match(content, start + 1):
                yield Row(counter.line_at(start), None, (_MORE,))
            position = _end_of(_BETWEEN_ARRAYS, content, start + 1)
            continue
        end = _element_end(content, start)
        row = parse(content[start:end].strip(), counter.line_at(start))
        if row.value is None and content[start : start + 1] == b"{":
            end = _next_object(content, start, end)
        yield row
        position = end
    if not closed:
        yield Row(counter.line_at(len(content.rstrip())), None, (_NOT_CLOSED,))


_MORE = Fault("", "json", "The array ends here, and more follows it. Write all records into one array.", True)
_NOT_CLOSED = Fault(
    "", "json", "The array is not closed: the file may have been cut off. Add `]` or copy the file again.", True
)


class _LineCounter:
    """Lines of rising positions, each newline counted once."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._line, self._position = 1, 0

    def line_at(self, position: int) -> int:
        self._line += self._content.count(b"\n", self._position, position)
        self._position = position
        return self._line


_BETWEEN = re.compile(rb"[\s,]*")
_BETWEEN_ARRAYS = re.compile(rb"[\s,\[\]]*")
_REST_IS_BLANK = re.compile(rb"\s*\Z")
_TOKENS = re.compile(rb'"[^"\\\n]*(?:\\.[^"\\\n]*)*"|[{}\[\],]')
_NEXT_OBJECT = re.compile(rb"\n[ \t]*+(?:,[ \t]*+)?(?=\{)|\}\s*+,\s*+(?=\{)")


def _end_of(pattern: re.Pattern[bytes], content: bytes, position: int) -> int:
    found = pattern.match(content, position)
    return found.end() if found else position


def _element_end(content: bytes, start: int) -> int:
    """Behind the element that starts here: at the comma or bracket that follows it at its own depth."""
    depth = 0
    for found in _TOKENS.finditer(content, start):
        mark = found[0]
        if mark in (b"{", b"["):
            depth += 1
        elif mark in (b"}", b"]"):
            if depth == 0:  # the array's own bracket, or a brace too many, which is part of a broken element
                return found.start() if mark == b"]" else found.end()
            depth -= 1
            if depth == 0:
                return found.end()
        elif mark == b"," and depth == 0:
            return found.start()
    return len(content)


def _next_object(content: bytes, start: int, end: int) -> int:
    """Where to go on after a broken object: its end, or an object that seems to start inside it."""
    found = _NEXT_OBJECT.search(content, start + 1, end)
    return found.end() if found else end
