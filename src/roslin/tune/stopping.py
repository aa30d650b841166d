"""Being asked to stop: Ctrl-C or SIGTERM, and what a run that was stopped ends with."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ONE_WISH = 3.0
"""Seconds within which a second signal is the first one's echo: torchrun hands on what the terminal sent already."""


class Interrupted(Exception):
    """The run was asked to stop (Ctrl-C, SIGTERM) and has saved where it is."""


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
