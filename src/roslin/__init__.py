"""Roslin makes, runs, judges and publishes instruction-following language models of the Dolly family.

>>> from roslin import Roslin
>>> model = Roslin.load("base")  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roslin.answer import Answer, Roslin
    from roslin.integrations import pipeline
    from roslin.records import Record

__version__ = "0.1.0"

_HOMES = {
    "Answer": "roslin.answer",
    "Record": "roslin.records",
    "Roslin": "roslin.answer",
    "pipeline": "roslin.integrations",
}

__all__ = ["Answer", "Record", "Roslin", "pipeline"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for, so that `roslin --help` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'roslin' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
