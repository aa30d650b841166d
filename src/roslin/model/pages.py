"""Memory by the page: files' own pages in whatever order, and files that the system reads ahead."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from itertools import accumulate
from threading import Event, Thread
from typing import TYPE_CHECKING, NamedTuple

from roslin.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import IO, BinaryIO

PROBE = 2**21
"""How far apart it is looked whether a file is in memory already."""
REQUEST = 2**17
"""How much is asked for at a time. Of a larger request Linux reads only the beginning, if the disk takes no larger ones
and is set to the usual read-ahead."""
MAP_FIXED = 0x10


class Piece(NamedTuple):
    """A part of a file, in bytes."""

    path: Path
    start: int
    size: int


def map_piece(piece: Piece) -> tuple[mmap.mmap, int]:
    """Memory that is a file's own pages, and where in it the piece begins.

    Pages are read when touched, and copied when written to. Raises InputError if the file is shorter than that.
    """
    offset = piece.start % mmap.ALLOCATIONGRANULARITY
    with piece.path.open("rb", buffering=0) as file:
        _check_end(piece, file)
        size = offset + piece.size
        return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY, offset=piece.start - offset), offset


def map_stacked(pieces: Sequence[Piece]) -> tuple[mmap.mmap, int] | None:
    """The same for several pieces, one behind the other in memory, wherever they lie.

    None where pages cannot be put together so: each piece must begin in its page where the one before it ends.
    """
    first, *others = _joined(pieces)
    if not others:
        return map_piece(first)
    offset = first.start % mmap.PAGESIZE
    places = list(accumulate((piece.size for piece in others), initial=offset + first.size))
    fitting = all(piece.start % mmap.PAGESIZE == at % mmap.PAGESIZE for piece, at in zip(others, places, strict=False))
    if sys.platform != "linux" or not fitting or min(first.size, *(p.size for p in others)) < mmap.PAGESIZE:
        return None
    memory = mmap.mmap(-1, places[-1], flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with ExitStack() as opened:
        paths = {piece.path for piece in pieces}
        files = {path: opened.enter_context(path.open("rb", buffering=0)) for path in paths}
        _lay(memory, 0, Piece(first.path, first.start - offset, offset + first.size), files[first.path])
        for piece, at in zip(others, places, strict=False):
            _lay(memory, at, piece, files[piece.path])
    return memory, offset


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """The same bytes, as one piece where they lie one behind the other in a file."""
    runs = [pieces[0]]
    for piece in pieces[1:]:
        last = runs[-1]
        if piece.start == last.start + last.size and piece.path == last.path:
            runs[-1] = Piece(last.path, last.start, last.size + piece.size)
        else:
            runs.append(piece)
    return runs


def _lay(memory: mmap.mmap, at: int, piece: Piece, file: IO[bytes]) -> None:
    """Make a piece's pages those of `memory` from `at` on; a page that the piece before ends in gets a copy."""
    _check_end(piece, file)
    shared = -at % mmap.PAGESIZE
    if shared:
        memory[at : at + shared] = os.pread(file.fileno(), shared, piece.start)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + at + shared
    rights, kind = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | MAP_FIXED
    if _system_mmap()(address, piece.size - shared, rights, kind, file.fileno(), piece.start + shared) != address:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@cache
def _system_mmap() -> Callable[..., int]:
    """The system's mmap, which can be told where; Python's own cannot."""
    function = ctypes.CDLL(None, use_errno=True).mmap
    function.restype = ctypes.c_void_p
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    return function


def _check_end(piece: Piece, file: IO[bytes]) -> None:
    if os.fstat(file.fileno()).st_size < piece.start + piece.size:
        raise InputError(f"{piece.path} was cut short while it was being loaded.")


@contextmanager
def reading_ahead(paths: Iterable[Path]) -> Iterator[None]:
    """Within it the system reads files, in this order and in many requests at once, ahead of who touches their pages.

    Leaving it waits for the end, unless by an error.
    """
    if sys.platform != "linux":
        yield
        return
    failed = Event()
    thread = Thread(target=_ask_for, args=(list(dict.fromkeys(paths)), failed), daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        failed.set()
        raise
    finally:
        thread.join()


def _ask_for(paths: Sequence[Path], failed: Event) -> None:
    """Only a hint: what is wrong with a file is for those to say who read it."""
    for path in paths:
        with suppress(OSError), path.open("rb") as file:
            for start in range(0, path.stat().st_size, PROBE):
                if failed.is_set():
                    return
                if not _is_in_memory(file, start):
                    _ask_for_part(file, start)


def _is_in_memory(file: BinaryIO, start: int) -> bool:
    try:
        return os.preadv(file.fileno(), [bytearray(1)], start, os.RWF_NOWAIT) > 0
    except OSError:  # not in memory, or a file system that does not say
        return False


def _ask_for_part(file: BinaryIO, start: int) -> None:
    for part in range(start, start + PROBE, REQUEST):
        os.posix_fadvise(file.fileno(), part, REQUEST, os.POSIX_FADV_WILLNEED)
