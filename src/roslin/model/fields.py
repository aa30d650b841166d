"""Reading the fields of a configuration: each by its type, with every fault collected before any is raised."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

from roslin.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")

LARGEST = 2**24
"""No size of a real model comes near it, and products of two of them still fit what torch counts with."""


class Fields:
    """The values of one JSON object, and the faults found while reading them.

    A reader returns a harmless stand-in after a fault, so that reading goes on and `raise_faults` tells all.
    A value of null counts as absent, as transformers writes it for "the default".
    """

    def __init__(self, values: Mapping[str, Any], source: str, faults: list[str] | None = None) -> None:
        self._values = values
        self._source = source
        self._faults: list[str] = [] if faults is None else faults

    def raise_faults(self) -> None:
        """Raise InputError if anything was wrong."""
        if self._faults:
            raise InputError("\n".join([f"{self._source} cannot be used:", *(f"  {fault}" for fault in self._faults)]))

    def size(self, key: str, default: int | None = None) -> int:
        """A whole number above zero."""
        value = self._value(key, default)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST:
            return value
        wanted = f"at most {LARGEST:,}" if isinstance(value, int) and value > LARGEST else "a whole number above 0"
        return self._fault(key, value, wanted, 1)

    def count(self, key: str, default: int) -> int:
        """A whole number, zero or more."""
        value = self._value(key, default)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        return self._fault(key, value, "a whole number, 0 or more", 0)

    def number(self, key: str, default: float | None = None) -> float:
        """A number above zero."""
        value = self._value(key, default)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf:
            return float(value)
        return self._fault(key, value, "a number above 0", 1.0)

    def share(self, key: str, default: float) -> float:
        """A number above zero and at most one."""
        value = self.number(key, default)
        return value if value <= 1 else self._fault(key, value, "at most 1", 1.0)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._value(key, default)
        return value if isinstance(value, bool) else self._fault(key, value, "true or false", default)

    def choice(self, key: str, choices: Mapping[str, T], default: str) -> T:
        """One of the names in `choices`, as what it stands for."""
        value = self._value(key, default)
        if isinstance(value, str) and value in choices:
            return choices[value]
        return self._fault(key, value, f"one of {', '.join(choices)}", choices[default])

    def token(self, key: str, default: int | None) -> int | None:
        """A token id; the first where the file lists several; None where it says null."""
        value = self._values.get(key, default)
        if isinstance(value, list) and value:
            value = value[0]
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        return self._fault(key, value, "a token id, a list of them, or null", None)

    def divided(self, key: str, whole: int, parts_key: str, parts: int) -> int:
        """`whole` / `parts`, which must come out even."""
        if whole % parts:
            self._faults.append(f"{key}: {whole} does not divide by {parts_key} {parts}")
        return max(whole // parts, 1)

    def rotary_dims(self, key: str, dims: int, head_dim: int) -> int:
        """How many dimensions of a head turn: an even number, at most all of them."""
        if dims % 2 or not 0 < dims <= head_dim:
            self._faults.append(f"{key}: turns {dims} of a head's {head_dim} dimensions; Roslin needs an even number")
        return dims

    def window(self, key: str, default: int | None) -> int | None:
        """A whole number above zero, or None where the file says null."""
        if key in self._values and self._values[key] is None:
            return None
        return None if key not in self._values and default is None else self.size(key, default)

    def names(self, key: str) -> list[str]:
        """A list of names; empty where there is none."""
        value = self._value(key, [])
        if isinstance(value, list) and all(isinstance(name, str) for name in value):
            return value
        return self._fault(key, value, "a list of names", [])

    def has(self, key: str) -> bool:
        """Whether the file says anything under this key."""
        return self._values.get(key) is not None

    def fault(self, text: str) -> None:
        """Note something wrong that lies between fields."""
        self._faults.append(text)

    def rope(self) -> Fields:
        """The fields of `rope_parameters` (transformers 5) and `rope_scaling` (4), their kind as `rope_type`."""
        key = "rope_scaling" if self._values.get("rope_scaling") else "rope_parameters"
        rope = self._value(key, {})
        if not isinstance(rope, dict):
            rope = self._fault(key, rope, "an object", {})
        kind = rope.get("rope_type", rope.get("type", "default"))
        return Fields(rope | {"rope_type": kind}, self._source, self._faults)

    def unscaled_rope(self) -> None:
        """The same for a family whose positions cannot be stretched: a fault if they are."""
        self.rope().choice("rope_type", {"default": None}, "default")

    def _value(self, key: str, default: Any) -> Any:
        value = self._values.get(key)
        return default if value is None else value

    def _fault(self, key: str, value: object, wanted: str, stand_in: T) -> T:
        found = "is missing" if value is None else f"is {value!r}"
        self._faults.append(f"{key}: {found}; it must be {wanted}")
        return stand_in
