"""The values that a program under test may make: kinds, and how large they may become.

Lists, sets and dictionaries hold only what cannot change (numbers, texts, tuples of these), so that what was measured
when it was put in stays as it was, and nothing can hold itself.
"""

from collections.abc import Iterable
from typing import Any

Value = Any
"""None, bool, int, float, str, tuple, list, set or dict."""

INT_BITS = 512
SIZE = 2000
"""Characters of a text, items of a collection, and both together in what a collection holds."""
DEPTH = 3
"""Tuples within tuples."""


class Refused(Exception):
    """A program needs what is not run: a part of Python that is left out, too many steps, or too much memory."""


def measured(value: Value) -> int:
    """The size of a value. Raises Refused for one that is too large, or of a kind that no program here may make."""
    kind = type(value)
    if kind in (list, set):
        return _within(1 + _contents(value, 0))
    if kind is dict:
        return _within(1 + _contents(value.keys(), 0) + _contents(value.values(), 0))
    return _within(_fixed(value, 0))


def _contents(values: Iterable[Value], depth: int) -> int:
    total = 0
    for value in values:
        total = _within(total + _fixed(value, depth))
    return total


def _fixed(value: Value, depth: int) -> int:
    """The size of a value that cannot change."""
    kind = type(value)
    if kind is int:
        if value.bit_length() > INT_BITS:
            raise Refused(f"an integer of more than {INT_BITS} bits")
        return 1
    if kind is str:
        return _within(1 + len(value))
    if kind is tuple and depth < DEPTH:
        return 1 + _contents(value, depth + 1)
    if value is None or kind in (bool, float):
        return 1
    raise Refused(f"a {kind.__name__} inside another collection" if kind in (list, set, dict, tuple) else kind.__name__)


def _within(size: int) -> int:
    if size > SIZE:
        raise Refused(f"a value of more than {SIZE} items or characters")
    return size


def guard_product(left: Value, right: Value) -> None:
    """Refuse a repetition (`"a" * n`, `[0] * n`) that would be too large, before it is made."""
    for many, times in ((left, right), (right, left)):
        if isinstance(many, str | list | tuple) and isinstance(times, int) and len(many) * times > SIZE:
            raise Refused(f"a value of more than {SIZE} items or characters")


def guard_power(base: Value, exponent: Value) -> None:
    """Refuse a power of integers that would be too large, before it is computed."""
    whole = isinstance(base, int) and isinstance(exponent, int)
    if whole and (abs(exponent) > INT_BITS or base.bit_length() * exponent > INT_BITS):
        raise Refused(f"an integer of more than {INT_BITS} bits")
