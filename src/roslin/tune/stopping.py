"""Being asked to stop: Ctrl-C or SIGTERM, and what a run that was stopped ends with."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ONE_WISH = 3.0
"""Seconds within which a second signal is the first one's echo: torchrun hands on what the terminal sent already."""


TERMINATED = 128 + signal.SIGTERM
"""Exit code after SIGTERM, as shells have it."""


class Interrupted(Exception):
    """The run was asked to stop (Ctrl-C, SIGTERM) and has saved where it is."""


@contextmanager
def termination() -> Iterator[Callable[[], None]]:
    """Have SIGTERM raise SystemExit, until what this gives is called: from then on it is ignored.

    torchrun sends it to all processes as soon as one has died, and they are about to say which.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    def ignore() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield ignore
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stop_requests(*, echoes: bool) -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; a second stops at once. Never set outside the main thread.

    With `echoes`, a second one that comes right behind the first is no second one.
    """
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested
        return
    first = 0.0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if not requested.is_set():
            first = time.monotonic()
            requested.set()
        elif not echoes or time.monotonic() - first > ONE_WISH:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
