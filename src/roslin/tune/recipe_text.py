"""The text of a recipe: YAML with the line of every key, and `key=value` words put over it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from roslin.errors import InputError


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int | str]]:
    """A recipe's values, and the line of each dotted key. Raises InputError for what is no mapping, or no YAML."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such recipe file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error}).") from None
    try:
        node = yaml.compose(text)
        values = yaml.load(text, _Loader)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid YAML ({error}).") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise InputError(f"{where}: not valid YAML ({getattr(error, 'problem', None) or error}).") from None
    if not isinstance(node, yaml.MappingNode):
        raise InputError(f"{path}: a recipe is a mapping of keys to values, such as `model: EleutherAI/pythia-6.9b`.")
    lines: dict[str, int | str] = dict(_key_lines(node))
    repeated = _repeated_keys(node)
    if repeated:
        raise InputError("\n".join(f"{path}:{line}: {key}: stands twice in the recipe" for key, line in repeated))
    return values, lines


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 5e-6 as text; here it is the number that people mean."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(?:\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _key_lines(node: yaml.MappingNode) -> Iterator[tuple[str, int]]:
    """Each key with its line; a recipe has groups, and no groups within groups."""
    for key, value in node.value:
        yield key.value, key.start_mark.line + 1
        for inner, _ in value.value if isinstance(value, yaml.MappingNode) else ():
            yield f"{key.value}.{inner.value}", inner.start_mark.line + 1


def _repeated_keys(node: yaml.MappingNode) -> list[tuple[str, int]]:
    names = [key.value for key, _ in node.value]
    return [(key.value, key.start_mark.line + 1) for i, (key, _) in enumerate(node.value) if key.value in names[:i]]


def apply_override(values: dict[str, Any], lines: dict[str, int | str], word: str) -> None:
    """Put a `key=value` word into a recipe's values, and the word where the line of its key stands.

    Raises InputError for a word that is none, and one that reaches inside what is no group.
    """
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise InputError(f"{word!r}: settings are given as key=value, such as learning_rate=1e-5.")
    try:
        value = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        value = text
    *path, last = key.split(".")
    target = values
    for part in path:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise InputError(f"{word!r}: {part} is no group of settings.")
    target[last] = value
    lines[key] = "command line"
