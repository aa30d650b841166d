"""What must not be in the text of files that go to a hub: secrets, and paths of this machine."""

from __future__ import annotations

import json
import re
import struct
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

import orjson
import yaml

from roslin.errors import InputError
from roslin.gguf_file import open_gguf
from roslin.publish.upload.machine_paths import TEXT, advice_on, path_in_value, paths_in
from roslin.publish.upload.secrets import secrets_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from roslin.publish.upload.files import SentFile

VOCABULARIES = (
    "tokenizer.json",
    "vocab*.*",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "*.tiktoken",
)
"""Their tokens may be any text, so that a path among them is no path."""
SECRET = "take it out, and revoke it where it was made: it has been in a file that was about to be sent"
BOM_16 = (b"\xff\xfe", b"\xfe\xff")
TEXTS = (
    *(".cfg", ".conf", ".csv", ".html", ".ini", ".ipynb", ".jinja", ".json", ".jsonl", ".log", ".md", ".py", ".rst"),
    *(".sh", ".toml", ".tsv", ".txt", ".xml", ".yaml", ".yml"),
)
"""Files that are text by their names, even with zero bytes in them."""
SAMPLE = 8192
"""Bytes at a file's beginning that tell text from numbers: other text holds no zero byte."""
AT_ONCE = 2**25
"""Characters of a text that are looked through at once."""
LONGEST_SHOWN = 80
MOST_SHOWN = 5
"""Faults of one file that are listed."""


def text_faults(file: SentFile, *, paths: bool) -> list[str]:
    """What is wrong with the text in a file, or with what a file of weights says of itself; `paths`: those as well."""
    faults = [*_secret_faults(file), *(_path_faults(file) if paths else ())]
    more = len(faults) - MOST_SHOWN
    return [*faults[:MOST_SHOWN], *([f"{file.name}: and {more} more of the kind"] if more > 0 else [])]


def _secret_faults(file: SentFile) -> Iterator[str]:
    for key, value in _said_by_weights(file).items():
        for _, kind in secrets_in(value):
            yield f"{file.name}, {key}: {kind}: {SECRET}"
    for before, text in _text(file.path):
        for line, kind in secrets_in(text):
            yield f"{file.name}:{before + line}: {kind}: {SECRET}"


def _path_faults(file: SentFile) -> Iterator[str]:
    for key, value in _said_by_weights(file).items():
        if found := path_in_value(value):
            yield f"{file.name}, {key}: a path of this machine, {_shown(found)}: {advice_on(key)}"
    if any(fnmatch(file.path.name, pattern) for pattern in VOCABULARIES):
        return
    if file.path.suffix in (".json", ".yaml", ".yml"):
        yield from _setting_faults(file)
    else:
        yield from _line_faults(file)


def _line_faults(file: SentFile) -> Iterator[str]:
    """Paths anywhere in a text."""
    for before, text in _text(file.path):
        for line, found in paths_in(text):
            yield f"{file.name}:{before + line}: a path of this machine, {_shown(found)}: {TEXT}"


def _setting_faults(file: SentFile) -> Iterator[str]:
    """Paths in a settings file, with the key of each."""
    text = "".join(part for _, part in _text(file.path))
    try:
        documents = [json.loads(text)] if file.path.suffix == ".json" else list(yaml.safe_load_all(text))
    except yaml.constructor.ConstructorError:  # tags that some program understands
        yield from _line_faults(file)
        return
    except (ValueError, yaml.YAMLError) as error:
        yield f"{file.name}: cannot be read as {file.path.suffix[1:].upper()} ({' '.join(str(error).split())}): mend it"
        return
    for key, value in (found for document in documents for found in _strings(document, "")):
        if found := path_in_value(value):
            where = f"{file.name}:{_line_of(value, text)}"
            yield f"{where}, {key}: a path of this machine, {_shown(found)}: {advice_on(key)}"


def _strings(values: Any, key: str) -> Iterator[tuple[str, str]]:
    """All texts within nested settings, keys among them, by the keys above them joined with dots."""
    if isinstance(values, str):
        yield key, values
    elif isinstance(values, dict):
        for name, value in values.items():
            if isinstance(name, str):
                yield key, name
            yield from _strings(value, f"{key}.{name}" if key else str(name))
    elif isinstance(values, list):
        for at, value in enumerate(values):
            yield from _strings(value, f"{key}[{at}]")


def _line_of(value: str, text: str) -> int:
    """The line of a settings file where a value stands first; 1 if it is spelt otherwise there."""
    spelt = (orjson.dumps(value).decode()[1:-1], value)
    at = max(text.find(spelling) for spelling in spelt)
    return text.count("\n", 0, max(at, 0)) + 1


def _text(path: Path) -> Iterator[tuple[int, str]]:
    """A file's text in parts of whole lines, each with the count of lines before it; nothing of one that is no text."""
    with path.open("rb") as source:
        sample = source.read(SAMPLE)
    encoding = _encoding(sample)
    if b"\0" in sample and encoding == "utf-8-sig" and path.suffix.lower() not in TEXTS:
        return
    before = 0
    with path.open(encoding=encoding, errors="replace") as lines:
        while part := lines.readlines(AT_ONCE):
            yield before, "".join(part)
            before += len(part)


def _encoding(sample: bytes) -> str:
    """UTF-16 by its mark, or by zeros in nearly every second byte; else UTF-8."""
    if sample.startswith(BOM_16):
        return "utf-16"
    half = len(sample) // 2
    high_first, low_first = sample[::2].count(0), sample[1::2].count(0)
    if 10 * max(high_first, low_first) < 9 * half or high_first == low_first:
        return "utf-8-sig"
    return "utf-16-be" if high_first > low_first else "utf-16-le"


def _said_by_weights(file: SentFile) -> dict[str, str]:
    """What a file of weights says of itself, by key."""
    values: dict[str, Any] = {}
    if file.path.suffix == ".safetensors":
        values = _safetensors_metadata(file.path)
    elif file.path.suffix == ".gguf" and not re.search(r"-(?!00001)\d{5}-of-\d{5}$", file.path.stem):
        try:
            values = dict(open_gguf(file.path).values)
        except InputError:  # told where the model is looked at
            values = {}
    return {key: value for key, value in values.items() if isinstance(value, str)}


def _safetensors_metadata(path: Path) -> dict[str, Any]:
    """The header's `__metadata__`; none where the file is too damaged to have one, which is told of the model."""
    with path.open("rb") as source:
        length = source.read(8)
        if len(length) < 8 or struct.unpack("<Q", length)[0] > path.stat().st_size:
            return {}
        try:
            found = orjson.loads(source.read(struct.unpack("<Q", length)[0])).get("__metadata__")
        except (ValueError, AttributeError):
            return {}
    return found if isinstance(found, dict) else {}


def _shown(path: str) -> str:
    return path if len(path) <= LONGEST_SHOWN else f"{path[:LONGEST_SHOWN]}…"
