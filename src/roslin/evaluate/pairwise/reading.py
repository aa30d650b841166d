"""Reading the JSON files of this part: their bytes, and what is wrong with them in words."""

from pathlib import Path

from pydantic import ValidationError

from roslin.errors import InputError

SHOWN_FAULTS = 20


def read_bytes(path: Path) -> bytes:
    """All of a file. Raises InputError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from None


def faults_of(error: ValidationError) -> list[str]:
    """What is wrong, a line a fault with its place (items count from 1 as in the sheet); the first SHOWN_FAULTS."""
    found = error.errors(include_url=False, include_context=False)
    told = [_fault(fault["loc"], fault["msg"], fault["input"]) for fault in found[:SHOWN_FAULTS]]
    return told + ([f"and {len(found) - SHOWN_FAULTS} more"] if len(found) > SHOWN_FAULTS else [])


def _fault(place: tuple[int | str, ...], what: str, value: object) -> str:
    field = ".".join(str(part + 1) if isinstance(part, int) else part for part in place)
    given = f" ({value!r})" if isinstance(value, str | int | float) and len(repr(value)) < 60 else ""
    return f"{field}{given}: {what}" if field else what
