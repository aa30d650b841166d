"""The errors that people see: each says what is wrong, where, and what to do, and knows its exit code."""

import errno
from pathlib import Path


class RoslinError(Exception):
    """Something a person can mend. The command line prints its text without a traceback."""

    exit_code = 1
    is_told = False
    """Whether it has been said on stderr already."""


class InputError(RoslinError):
    """The input is bad: a record, a recipe, a model folder, a prompt. Exit code 1."""


class UsageError(RoslinError):
    """The command or call was put wrongly. Exit code 2."""

    exit_code = 2


class MachineError(RoslinError):
    """The machine cannot: memory, disk or device. Exit code 3."""

    exit_code = 3


NO_MEMORY = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory")
"""How torch's allocator for the CPU words it; it has no error class of its own."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory has run out: Python's, or torch's on a device or on the CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


DISK_FULL = ("No space left", "unexpected pos")
"""How a full disk is worded where an error has no number: the second is torch's, of fewer bytes written than given."""


def write_failed(path: Path, error: Exception) -> MachineError:
    """What to raise when a run could not write a file: its saved state is whole, so it can go on later."""
    full = getattr(error, "errno", None) == errno.ENOSPC or any(words in str(error) for words in DISK_FULL)
    what = "the disk is full" if full else str(error)
    return MachineError(
        f"Could not write {path}: {what}. What was saved before is whole; free some space and give the same command to "
        "go on from it."
    )
