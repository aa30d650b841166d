"""The C++ kernels for answering on a CPU: one shared library, loaded with ctypes, that knows nothing of torch.

It is built when Roslin is installed (setup.py), from every .cpp file in this folder. An installation without a
compiler lacks it, and everything that uses it has another way.
"""

import ctypes
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

POINTER, NUMBER = ctypes.c_void_p, ctypes.c_int64
"""What most arguments of the library's functions are."""

SWITCH = "ROSLIN_CPU_KERNELS"
"""The environment variable that, set to 0, leaves the library out: torch's own kernels are used then."""
LEVELS = {0: "portable", 1: "avx2", 2: "avx512", 3: "avx512_vnni", 10: "neon", 11: "neon_dot"}
"""Which instructions the kernels can use, by the number that the library has for them (level.h)."""


def library_path() -> Path:
    """Where the library lies if it was built."""
    return Path(__file__).with_name("_kernels.dll" if sys.platform == "win32" else "_kernels.so")


@cache
def library() -> ctypes.CDLL | None:
    """The library; None where it was not built, is switched off, or does not load on this machine.

    The first time that it is missing, a warning says so and what to do.
    """
    if os.environ.get(SWITCH) == "0":
        return None
    path = library_path()
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        reason = str(error) if path.is_file() else "it was not built, as there was no C++ compiler at installation"
        warnings.warn(
            f"Roslin's C++ kernels for the CPU are not used: {reason}. Answering works, but is slower. Install a "
            f"compiler (such as g++) and install Roslin again, or set {SWITCH}=0 to do without and hear no more.",
            stacklevel=2,
        )
        return None


def functions(arguments: Mapping[str, Sequence[Any]]) -> list[Callable[..., None]] | None:
    """Functions of the library that give nothing back, by name, with `arguments` declared; None without the library."""
    found = library()
    if found is None:
        return None
    declared = []
    for name, types in arguments.items():
        function = getattr(found, name)
        function.argtypes, function.restype = list(types), None
        declared.append(function)
    return declared


def level() -> str | None:
    """Which instructions the kernels use on this machine, such as avx512_vnni; None without the library."""
    found = library()
    return LEVELS[found.roslin_level()] if found else None
