"""Lines from the first process to each other one: orders go one way, signs of life the other.

A line breaks when the process at its other end dies, at once and however it dies. So a process that waits for work, or
for the numbers of one that is gone, gets to know.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener, wait

BEAT = 1.0
"""Seconds between two signs of life, which come from a thread of their own, whatever the process computes."""
SILENCE = 20.0
"""Seconds without one after which a process counts as lost."""
LAST_WORDS = 5.0
"""Seconds that a process has to end by itself after another one was lost; and to find out who that is."""
EXIT_CODE = 3
"""Of a process that ends because another one was lost."""
AGAIN = "The others end with it; start all of them again."


@dataclass(frozen=True)
class Whereabouts:
    """Which process it is, for people and for the one that calls it."""

    rank: int
    host: str
    pid: int

    @classmethod
    def here(cls, rank: int) -> "Whereabouts":
        """Those of this process."""
        return cls(rank, socket.gethostname(), os.getpid())

    def __str__(self) -> str:
        """In words."""
        return f"Rank {self.rank} (host {self.host}, pid {self.pid})"


class Lines:
    """The first process's ends of all lines. A thread listens; when one is lost, it says so and ends this process."""

    def __init__(self, listener: Listener, others: int) -> None:
        """Wait until so many have called."""
        self._peers: dict[Connection, Whereabouts] = {}
        for _ in range(others):
            line = listener.accept()
            _send_at_once(line)
            self._peers[line] = line.recv()
        listener.close()
        self._lost = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self.loss = ""
        """Who is lost and how, in words."""
        threading.Thread(target=self._listen, name="lines", daemon=True).start()

    def send(self, message: bytes) -> None:
        """Tell all others. Raises OSError when a line is broken."""
        for line in self._peers:
            line.send_bytes(message)

    def find_lost(self) -> str:
        """After something has failed: who is lost, in words; nothing where nobody is."""
        self._lost.wait(LAST_WORDS)
        return self.loss

    def give_up(self, words: str) -> None:
        """Say so, where nothing has been said yet, and end this process, should it not do so by itself.

        It may wait for questions that it can no longer answer, or hang in an exchange that nothing ends.
        """
        with self._lock:
            if self.loss or self._ended.is_set():
                return
            self.loss = words
        print(f"roslin: {words}", file=sys.stderr, flush=True)
        self._lost.set()
        threading.Thread(target=self._end_soon, name="lines-end", daemon=True).start()

    def end(self, message: bytes) -> None:
        """Tell those that still hear, and listen no more."""
        self._ended.set()
        for line in self._peers:
            try:
                line.send_bytes(message)
            except OSError:
                continue

    def _listen(self) -> None:
        heard = dict.fromkeys(self._peers, time.monotonic())
        while not self._ended.is_set():
            for line in wait(list(heard), BEAT):
                assert isinstance(line, Connection)
                words = _hear(line)
                if words:
                    return self.give_up(f"{self._peers[line]} {words}")
                heard[line] = time.monotonic()
            line, last = min(heard.items(), key=lambda item: item[1])
            if time.monotonic() - last > SILENCE:
                return self.give_up(f"{self._peers[line]} hangs: no sign of life for {SILENCE:g} s. {AGAIN}")
        return None

    def _end_soon(self) -> None:
        if not self._ended.wait(LAST_WORDS):
            os._exit(EXIT_CODE)


class Line:
    """The end of another process; a thread says once a second that this one lives."""

    def __init__(self, address: tuple[str, int], key: bytes, rank: int) -> None:
        """Call the first process."""
        self._line = Client(address, authkey=key)
        _send_at_once(self._line)
        self._line.send(Whereabouts.here(rank))
        self._lock = threading.Lock()
        threading.Thread(target=self._beat, name="line", daemon=True).start()

    def receive(self) -> bytes:
        """The next message, whenever it comes. Raises EOFError when the first process is gone."""
        try:
            return self._line.recv_bytes()
        except OSError:
            raise EOFError from None

    def has_news(self) -> bool:
        """Whether a message has come, or the first process is gone, or comes to be so soon."""
        try:
            return self._line.poll(LAST_WORDS)
        except OSError:
            return True

    def confess(self, error: str) -> None:
        """Tell the first process by which error this one ends."""
        self._say(error.encode())

    def _beat(self) -> None:
        while self._say(b""):
            time.sleep(BEAT)

    def _say(self, words: bytes) -> bool:
        with self._lock:
            try:
                self._line.send_bytes(words)
            except OSError:
                return False
        return True


def _hear(line: Connection) -> str:
    """What has befallen the process at the other end, in words; nothing if it lives."""
    try:
        error = line.recv_bytes().decode()
    except (EOFError, OSError):
        return f"has died. {AGAIN}"
    return f"was ended by an error: {error}" if error else ""


def _send_at_once(line: Connection) -> None:
    """Not to wait for more to send is an option of the socket, of which this makes another handle."""
    with socket.socket(fileno=os.dup(line.fileno())) as same:
        same.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        same.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def listen(hosts: Sequence[str], key: bytes) -> tuple[Listener, tuple[str, int]]:
    """Where others can call, and the address that they have to: this machine's own, where all are on it."""
    alone = len(set(hosts)) == 1
    listener = Listener(("127.0.0.1" if alone else "0.0.0.0", 0), backlog=len(hosts), authkey=key)
    _, port = listener.address
    return listener, ("127.0.0.1" if alone else os.environ["MASTER_ADDR"], int(port))
