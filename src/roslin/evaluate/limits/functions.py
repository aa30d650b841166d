"""The functions and methods that a program under test may call: those of Python that take and give plain values."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from roslin.evaluate.limits.values import SIZE, Refused, Value

DIGITS = 30
"""Most digits that `round` may round to, to either side of the point."""


def _range(*bounds: int) -> list[int]:
    numbers = range(*bounds)
    if len(numbers) > SIZE:
        raise Refused(f"a range of more than {SIZE}")
    return list(numbers)


def _text(value: Value = "") -> str:
    if isinstance(value, list | set | dict | tuple):
        raise Refused("str of a collection")
    return str(value)


def _round(number: Any, ndigits: int | None = None) -> Any:
    if ndigits is not None and abs(ndigits) > DIGITS:
        raise Refused("round to so many digits")
    return round(number, ndigits)


def _print(*_: Value) -> None:
    """Say nothing: what a program prints is no result."""


def _ordered(values: Value) -> Value:
    """Something to go through; a set in an order that does not change from run to run."""
    return sorted(values, key=repr) if isinstance(values, set) else values


def _list(values: Value = ()) -> list[Value]:
    return list(_ordered(values))


def _tuple(values: Value = ()) -> tuple[Value, ...]:
    return tuple(_ordered(values))


def _sorted(values: Iterable[Any], reverse: bool = False) -> list[Any]:
    return sorted(_ordered(values), reverse=reverse)


FUNCTIONS: Mapping[str, Callable[..., Value]] = {
    "abs": abs,
    "all": all,
    "any": any,
    "bool": bool,
    "chr": chr,
    "divmod": divmod,
    "enumerate": lambda values, start=0: list(enumerate(_ordered(values), start)),
    "float": float,
    "int": int,
    "len": len,
    "list": _list,
    "max": max,
    "min": min,
    "ord": ord,
    "print": _print,
    "range": _range,
    "reversed": lambda values: list(reversed(values)),
    "round": _round,
    "set": lambda values=(): set(values),
    "sorted": _sorted,
    "str": _text,
    "sum": lambda values, start=0: sum(values, start),
    "tuple": _tuple,
    "zip": lambda *values: list(zip(*map(_ordered, values), strict=False)),
}
KINDS: Mapping[str, type] = {kind.__name__: kind for kind in (bool, int, float, str, list, tuple, set, dict)}
"""What `isinstance` may ask for."""
KEYWORDS = {"sorted": {"reverse"}, "enumerate": {"start"}, "sum": {"start"}, "round": {"ndigits"}}
"""The keyword arguments that are passed on."""


def _replace(text: str, old: str, new: str) -> str:
    if (len(text) + 1) * (len(new) + 1) > 50 * SIZE:
        raise Refused(f"a text of more than {SIZE} characters")
    return text.replace(old, new)


def _join(text: str, parts: Iterable[str]) -> str:
    found = list(_ordered(parts))
    if sum(len(part) + len(text) for part in found) > SIZE:
        raise Refused(f"a text of more than {SIZE} characters")
    return text.join(found)


def _sort(values: list[Any], reverse: bool = False) -> None:
    values.sort(reverse=reverse)


_TEXT = ("capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdigit", "islower", "isspace",
         "isupper", "lower", "lstrip", "rfind", "rstrip", "split", "startswith", "strip", "swapcase", "title",
         "upper")  # fmt: skip
_LIST = ("append", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse")

METHODS: Mapping[type, Mapping[str, Callable[..., Value]]] = {
    str: {**{name: getattr(str, name) for name in _TEXT}, "join": _join, "replace": _replace},
    list: {**{name: getattr(list, name) for name in _LIST}, "sort": _sort},
    dict: {
        "get": dict.get,
        "items": lambda of: list(dict.items(of)),
        "keys": lambda of: list(dict.keys(of)),
        "values": lambda of: list(dict.values(of)),
    },
    set: {"add": set.add},
    tuple: {"count": tuple.count, "index": tuple.index},
}
