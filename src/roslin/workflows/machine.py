"""What the machine may lack, memory or disk, told in words instead of a traceback."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from roslin.errors import InputError, MachineError, out_of_memory, write_failed


@contextmanager
def enough_memory() -> Iterator[None]:
    """Turn the errors of memory that has run out into a MachineError that says what to do. Also a decorator."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise _no_memory(error) from error


def _no_memory(error: BaseException) -> MachineError:
    first = (str(error).strip().splitlines() or ["no reason given"])[0]
    return MachineError(
        f"There is not enough memory for this ({first}). A lower row_length (and max_length), precision=bf16 or a "
        "smaller model needs less; checkpoints that were written are whole."
    )


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn what goes wrong while `target` is written into a MachineError that names it."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise write_failed(target, error) from error


def make_folder(folder: Path) -> None:
    """Make a folder to write into, and try that it can be. Raises InputError for a file in its place, MachineError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{folder} is no folder: a file stands there or above it. Give another folder.") from None
    except OSError as error:
        raise MachineError(f"{folder} cannot be written to ({error.strerror}). Give another folder.") from None
