"""Memory by the page: files' own pages in whatever order, and files that the system reads ahead."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from contextlib import contextmanager
from itertools import accumulate
from threading import Event, Thread
from typing import TYPE_CHECKING, NamedTuple

from roslin.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

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
    with _opened(piece) as file:
        size = offset + piece.size
        return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY, offset=piece.start - offset), offset


def map_stacked(pieces: Sequence[Piece]) -> tuple[mmap.mmap, int] | None:
    """The same for several pieces, one behind the other in memory, wherever they lie.

    None where pages cannot be put together so: each piece must begin in its page where the one before it ends.
    """
    offset = pieces[0].start % mmap.PAGESIZE
    places = list(accumulate((piece.size for piece in pieces), initial=offset))
    fitting = all(piece.start % mmap.PAGESIZE == at % mmap.PAGESIZE for piece, at in zip(pieces, places, strict=False))
    if sys.platform != "linux" or not fitting or min(piece.size for piece in pieces) < mmap.PAGESIZE:
        return None
    memory = mmap.mmap(-1, places[-1], flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    _lay(memory, 0, Piece(pieces[0].path, pieces[0].start - offset, offset + pieces[0].size))
    for piece, at in zip(pieces[1:], places[1:], strict=False):
        _lay(memory, at, piece)
    return memory, offset


def _lay(memory: mmap.mmap, at: int, piece: Piece) -> None:
    """Make a piece's pages those of `memory` from `at` on; a page that the piece before ends in gets a copy."""
    shared = -at % mmap.PAGESIZE
    with _opened(piece) as file:
        memory[at : at + shared] = os.pread(file.fileno(), shared, piece.start)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + at + shared
        _map_fixed(address, file, piece.start + shared, piece.size - shared)


def _map_fixed(address: int, file: BinaryIO, start: int, size: int) -> None:
    """The system's mmap, whose other face in Python cannot say where."""
    function = ctypes.CDLL(None, use_errno=True).mmap
    function.restype = ctypes.c_void_p
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    rights, kind = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | MAP_FIXED
    if function(address, size, rights, kind, file.fileno(), start) != address:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@contextmanager
def _opened(piece: Piece) -> Iterator[BinaryIO]:
    with piece.path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < piece.start + piece.size:
            raise InputError(f"{piece.path} was cut short while it was being loaded.")
        yield file


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
    for path in paths:
        with path.open("rb") as file:
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
