"""The C++ kernels built for 64-bit Arm, run by an emulator in this process: what ctypes makes of a library, for one of
another processor. Needs the package `unicorn`, which is made of QEMU, and Linux.

The library sees this process's memory where it lies, piece by piece as it touches it: pointers mean the same to both.

As a plugin of pytest (-p arm_emulator) it takes the place of the library that ROSLIN_ARM_KERNELS names, for all tests.
"""

import ctypes
import math
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import unicorn
from unicorn import arm64_const as arm

from roslin.engine.cpu import library as library_file

PAGE = 4096
READ_AND_WRITE = unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE
STACK, STACK_BYTES = 0x20_0000_0000, 2**20
THREAD, THREAD_BYTES = 0x30_0000_0000, 2**16
BACK = 0x40_0000_0000
"""Where a function returns to: nothing is there, and the emulator stops."""
DOT_PRODUCT = 1 << 20
FLOATING = 3 << 20
"""The bits of CPACR_EL1 that let floating point be used."""
ELSEWHERE = {1: ("<d", math.log), 2: ("<f", math.log), 3: ("<f", math.exp2)}
"""Mathematics of the stand-ins: how the number lies in a register, and the function."""


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Before anything asks for the library."""
    library_file.library_path = lambda: Path(os.environ["ROSLIN_ARM_KERNELS"])
    library_file.ctypes = SimpleNamespace(CDLL=EmulatedLibrary)
    library_file.library.cache_clear()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """For whoever wants to be sure that it was not the processor itself."""
    terminalreporter.write_line("emulated: " + " ".join(sorted(library_file.library().called)))


class EmulatedFunction:
    """One function, with ctypes' `argtypes` and `restype`."""

    def __init__(self, library: "EmulatedLibrary", place: int) -> None:
        self._library, self._place = library, place
        self.argtypes: Sequence[Any] | None = None
        self.restype: Any = ctypes.c_int

    def __call__(self, *arguments: Any) -> Any:
        found = self._library.call(self._place, [number(each) for each in arguments])
        return None if self.restype is None else self.restype(found).value


class EmulatedLibrary:
    """The library, on a processor with the dot product's instructions."""

    def __init__(self, path: str) -> None:
        self._machine = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
        self._machine.ctl_set_cpu_model(arm.UC_CPU_ARM64_MAX)
        self._machine.reg_write(arm.UC_ARM64_REG_CPACR_EL1, FLOATING)
        for place, size in ((STACK, STACK_BYTES), (THREAD, THREAD_BYTES), (BACK, PAGE)):
            self._machine.mem_map(place, size)
        self._machine.reg_write(arm.UC_ARM64_REG_TPIDR_EL0, THREAD)
        self._seen: list[tuple[int, int]] = []
        self.called: set[str] = set()
        unmapped = unicorn.UC_HOOK_MEM_READ_UNMAPPED | unicorn.UC_HOOK_MEM_WRITE_UNMAPPED
        self._machine.hook_add(unmapped, self._show)
        self._machine.hook_add(unicorn.UC_HOOK_INTR, self._compute)
        image = Image(Path(path).read_bytes())
        self._places = image.functions()
        self._load(image)
        self._machine.mem_write(self._places["roslin_test_capabilities"], struct.pack("<Q", DOT_PRODUCT))
        for place in image.initialisers(self._machine):
            self.call(place, [])

    def __getattr__(self, name: str) -> EmulatedFunction:
        if name.startswith("_") or name not in self._places:
            raise AttributeError(name)
        self.called.add(name)
        found = EmulatedFunction(self, self._places[name])
        setattr(self, name, found)
        return found

    def call(self, place: int, arguments: Sequence[int | float]) -> int:
        """By Arm's calling convention: what a function leaves in x0."""
        whole = [each for each in arguments if not isinstance(each, float)]
        for register, each in enumerate(each for each in arguments if isinstance(each, float)):
            self._machine.reg_write(arm.UC_ARM64_REG_Q0 + register, int.from_bytes(struct.pack("<f", each), "little"))
        for register, value in enumerate(whole[:8]):
            self._machine.reg_write(arm.UC_ARM64_REG_X0 + register, value)
        rest = b"".join(struct.pack("<Q", value) for value in whole[8:])
        top = STACK + STACK_BYTES - (len(rest) + 15) // 16 * 16
        self._machine.mem_write(top, rest)
        self._machine.reg_write(arm.UC_ARM64_REG_SP, top)
        self._machine.reg_write(arm.UC_ARM64_REG_LR, BACK)
        self._machine.emu_start(place, BACK)
        assert self._machine.reg_read(arm.UC_ARM64_REG_PC) == BACK
        return self._machine.reg_read(arm.UC_ARM64_REG_X0)

    def _load(self, image: "Image") -> None:
        begin, end = image.span()
        begin, end = begin // PAGE * PAGE, -(-end // PAGE) * PAGE
        self._machine.mem_map(begin, end - begin)
        for place, content in image.segments():
            self._machine.mem_write(place, content)

    def _show(self, machine: Any, access: int, address: int, size: int, value: int, data: Any) -> bool:
        """Let the library see the piece of this process's memory that an address lies in; False where there is none."""
        shown = False
        for begin, end in own_memory():
            if begin < address + size and address < end:
                for piece in without(begin, end, self._seen):
                    machine.mem_map_ptr(piece[0], piece[1] - piece[0], READ_AND_WRITE, piece[0])
                    self._seen.append(piece)
                    shown = True
        return shown

    def _compute(self, machine: Any, number: int, data: Any) -> None:
        layout, function = ELSEWHERE[machine.reg_read(arm.UC_ARM64_REG_W8)]
        size = struct.calcsize(layout)
        given = machine.reg_read(arm.UC_ARM64_REG_Q0).to_bytes(16, "little")[:size]
        made = struct.pack(layout, tolerant(function, *struct.unpack(layout, given)))
        machine.reg_write(arm.UC_ARM64_REG_Q0, int.from_bytes(made, "little"))


class Image:
    """A linked program for 64-bit Arm (ELF)."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        header = struct.unpack_from("<16sHHIQQQIHHHHHH", content)
        programs, sections = header[5], header[6]
        size, count, section_size, section_count = header[9], header[10], header[11], header[12]
        self._programs = [struct.unpack_from("<IIQQQQQQ", content, programs + i * size) for i in range(count)]
        self._sections = [
            struct.unpack_from("<IIQQQQIIQQ", content, sections + i * section_size) for i in range(section_count)
        ]

    def span(self) -> tuple[int, int]:
        loaded = [each for each in self._programs if each[0] == 1]
        return min(each[3] for each in loaded), max(each[3] + each[6] for each in loaded)

    def segments(self) -> list[tuple[int, bytes]]:
        """Where each part goes, and what it holds."""
        return [(each[3], self._content[each[2] : each[2] + each[5]]) for each in self._programs if each[0] == 1]

    def initialisers(self, machine: Any) -> list[int]:
        """What must be called before all else."""
        found: list[int] = []
        for _, kind, _, place, _, size, *_ in self._sections:
            if kind == 14:
                found += struct.unpack(f"<{size // 8}Q", machine.mem_read(place, size))
        return found

    def functions(self) -> dict[str, int]:
        """Where each symbol lies."""
        [(_, _, _, _, offset, size, link, *_)] = [each for each in self._sections if each[1] == 2]
        names = self._sections[link][4]
        found = {}
        for place in range(offset, offset + size, 24):
            name, _, _, _, value, _ = struct.unpack_from("<IBBHQQ", self._content, place)
            begin = names + name
            found[self._content[begin : self._content.index(b"\0", begin)].decode()] = value
        return found


def number(argument: Any) -> int | float:
    """What goes into a register for an argument that ctypes would take."""
    if argument is None:
        return 0
    if isinstance(argument, int):
        return argument % 2**64
    if isinstance(argument, float):
        return argument
    if isinstance(argument, ctypes.Array):
        return ctypes.addressof(argument)
    value = getattr(argument, "value", argument)
    if value is argument:
        value = ctypes.cast(argument, ctypes.c_void_p).value
    return (value or 0) % 2**64


def without(begin: int, end: int, taken: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The pieces from `begin` to `end` that are not taken."""
    found = []
    for one, other in sorted(taken):
        if one < end and begin < other:
            found.append((begin, one))
            begin = other
    return [(first, last) for first, last in [*found, (begin, end)] if first < last]


def own_memory() -> list[tuple[int, int]]:
    """The pieces of this process's memory that can be read."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, allowed = line.split()[:2]
        if allowed.startswith("r"):
            begin, end = place.split("-")
            found.append((int(begin, 16), int(end, 16)))
    return found


def tolerant(function: Callable[[float], float], x: float) -> float:
    """As C has it, which knows infinities and numbers that are none."""
    if x == 0 and function is math.log:
        return -math.inf
    try:
        return function(x)
    except ValueError:
        return math.nan
    except OverflowError:
        return math.inf
