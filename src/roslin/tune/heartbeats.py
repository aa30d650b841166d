"""Signs of life: every process of a run tells the others once a second that it lives, so a dead one gets a name."""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from torch.distributed import Store  # type: ignore[attr-defined]

BEAT = 1.0
"""Seconds between two signs of life."""
SILENCE = 20.0
"""Seconds without one after which a process counts as lost. Its sign comes from a thread of its own: no long read,
write or product keeps it from coming."""
SILENCE_AFTER_FAILURE = 5.0
"""The same once an exchange between processes has failed: then one of them is known to be lost."""
EXIT_CODE = 3
"""Of a process that ends because another one was lost."""


@dataclass(frozen=True)
class Sign:
    """What a process says of itself."""

    host: str
    pid: int
    beats: int = 0
    steps: int = 0
    """How far it has come: passes begun, parameters read. All processes of a run take the same steps."""
    ended: str | None = None
    """None while it works, an empty text once it is done, else the error that ended it."""


@dataclass
class _Peer:
    """What is known of another process: its newest sign, and when that came, on this one's clock."""

    sign: Sign | None
    heard: float


class Heartbeats:
    """This process's signs of life in a shared store, and what it makes of the others'."""

    def __init__(self, store: Store, rank: int, count: int, limit: float) -> None:
        """`limit` is how long (seconds) a process may work on one step while all others wait for it."""
        self._store, self._rank, self._limit = store, rank, limit
        self._mine = Sign(socket.gethostname(), os.getpid())
        now = time.monotonic()
        self._peers = {other: _Peer(None, now) for other in range(count) if other != rank}
        self._moved = now
        self._unreachable_since: float | None = None
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._beat, name="heartbeats", daemon=True)

    def start(self) -> None:
        """Begin to tell and to listen."""
        self._exchange()
        self._thread.start()

    def step(self) -> None:
        """Note that this process goes on."""
        with self._lock:
            self._mine = replace(self._mine, steps=self._mine.steps + 1)
            self._moved = time.monotonic()

    def end(self, error: str = "") -> None:
        """Tell that this process ends, by an error if one is given, and stop listening."""
        self._stop_listening()
        with self._lock:
            self._mine = replace(self._mine, ended=error)
        self._exchange()

    def first_to_tell(self, words: str) -> bool:
        """Whether no process has told these words yet: each error is printed once, whoever met it."""
        try:
            return self._store.add(f"told/{words}", 1) == 1
        except RuntimeError:  # the store is gone: better told twice than not at all
            return True

    def find_lost(self) -> str | None:
        """After an exchange has failed: which process is lost, in words. Waits for the signs that tell it."""
        self._stop_listening()
        patience = time.monotonic() + SILENCE_AFTER_FAILURE + 3 * BEAT
        while time.monotonic() < patience:
            self._exchange()
            if words := self._lost(SILENCE_AFTER_FAILURE):
                return words
            time.sleep(BEAT)
        return None

    def _stop_listening(self) -> None:
        self._stopped.set()
        self._thread.join(2 * BEAT)  # it may wait for a store that has gone

    def _beat(self) -> None:
        """The thread. Where the main one hangs in an exchange that cannot be interrupted, this one ends the process."""
        while not self._stopped.wait(BEAT):
            self._exchange()
            words = self._lost(min(SILENCE, self._limit)) or self._stalled()
            if words and not self._stopped.is_set():
                self._give_up(words)

    def _give_up(self, words: str) -> None:
        if self.first_to_tell(words):
            print(f"roslin: {words}", file=sys.stderr, flush=True)
        os._exit(EXIT_CODE)

    def _exchange(self) -> None:
        with self._lock:
            self._mine = replace(self._mine, beats=self._mine.beats + 1)
            said = json.dumps(asdict(self._mine))
        try:
            self._store.set(f"sign/{self._rank}", said)
            for rank, text in self._heard():
                self._note(self._peers[rank], Sign(**json.loads(text)))
            self._unreachable_since = None
        except RuntimeError:
            self._unreachable_since = self._unreachable_since or time.monotonic()

    def _heard(self) -> Sequence[tuple[int, bytes]]:
        ranks = [rank for rank, peer in self._peers.items() if peer.sign or self._store.check([f"sign/{rank}"])]
        return list(zip(ranks, self._store.multi_get([f"sign/{rank}" for rank in ranks]), strict=True)) if ranks else []

    @staticmethod
    def _note(peer: _Peer, sign: Sign) -> None:
        if peer.sign is None or sign.beats != peer.sign.beats:
            peer.heard = time.monotonic()
        peer.sign = sign

    def _lost(self, silence: float) -> str | None:
        """The first process that is silent for longer than that (seconds), in words."""
        now = time.monotonic()
        if self._unreachable_since is not None:
            if now - self._unreachable_since <= silence:
                return None
            place = os.environ.get("MASTER_ADDR", "of rank 0")
            return f"The machine {place}, through which all processes meet, cannot be reached any more. {AGAIN}"
        for rank, peer in self._peers.items():
            if words := self._what_befell(rank, peer.sign, now - peer.heard, silence):
                return words
        return None

    def _what_befell(self, rank: int, sign: Sign | None, silent: float, silence: float) -> str | None:
        if sign is None:
            never = f"Rank {rank} has not come: no sign of life from it within {self._limit:g} s. {AGAIN}"
            return never if silent > self._limit else None
        if silent <= silence or sign.ended == "":
            return None
        if sign.ended:
            return f"{_name(rank, sign)} was ended by an error: {sign.ended}"
        return f"{_name(rank, sign)} has died or hangs: no sign of life for more than {silence:g} s. {AGAIN}"

    def _stalled(self) -> str | None:
        """Who keeps the others waiting, in words, when all are alive and nothing has gone on for too long."""
        signs = {rank: peer.sign for rank, peer in self._peers.items() if peer.sign and peer.sign.ended is None}
        if not signs or time.monotonic() - self._moved <= self._limit:
            return None
        signs[self._rank] = self._mine
        last, most = min(signs, key=lambda rank: (signs[rank].steps, rank)), max(sign.steps for sign in signs.values())
        limit = f"sharding.timeout_seconds, {self._limit:g}, is how long a step may take."
        if signs[last].steps == most:
            return f"All ranks have stood at step {most} of their passes and reads for too long. {AGAIN} {limit}"
        where = f"it stands at step {signs[last].steps} of its passes and reads, and others wait at step {most}"
        return f"{_name(last, signs[last])} hangs: {where}. {AGAIN} {limit}"


AGAIN = "The same command goes on from the newest checkpoint."


def _name(rank: int, sign: Sign) -> str:
    return f"Rank {rank} (host {sign.host}, pid {sign.pid})"
