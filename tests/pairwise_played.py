"""Keys of made-up sheets, and an endpoint that does as a test says."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from roslin.evaluate.pairwise import Endpoint, Item, Key, Pair
from roslin.evaluate.pairwise.key import digest

Reply = tuple[int, Mapping[str, str], bytes]


def key_of(lefts: str, categories: Sequence[str] = ()) -> Key:
    """A key whose left answers are of the models that `lefts` names, one letter a pair."""
    pairs = [
        Pair(
            number=n, instruction=f"Question {n}?", context="", reference=None, left=f"L{n}", right=f"R{n}"
        )
        for n in range(1, len(lefts) + 1)
    ]  # fmt: skip
    names = categories or [""] * len(lefts)
    items = [Item(pair=p, category=c, left_is=m) for p, c, m in zip(pairs, names, lefts, strict=True)]
    return Key(
        sheet=digest(pairs), model_a="first", model_b="second", seed=1, settings={}, left_out=0, items=tuple(items)
    )


def completion(text: str | None) -> Reply:
    content = {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}
    return 200, {}, json.dumps(content).encode()


def failure(status: int, message: str = "no", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, named, json.dumps({"error": {"message": message, "type": "x", "param": None, "code": None}}).encode()


@dataclass
class Played:
    """A server that answers each request with what `play` makes of its body and of its number, from 0."""

    play: Callable[[dict[str, Any], int], Reply]
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        played, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    number = len(played.bodies)
                    played.bodies.append(body)
                    played.headers.append(dict(self.headers))
                    played.paths.append(self.path)
                status, headers, content = played.play(body, number)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self) -> None:
                played.paths.append(f"GET {self.path}")
                self.send_error(404)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # a client that was told not to wait
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def endpoint(self, **settings: Any) -> Endpoint:
        return Endpoint(self.url, "judge", **{"sleep": self.slept.append, **settings})

    def end(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@contextmanager
def playing() -> Iterator[Callable[[Callable[[dict[str, Any], int], Reply]], Played]]:
    """A maker of endpoints, all of which end with the block."""
    made: list[Played] = []

    def make(play: Callable[[dict[str, Any], int], Reply]) -> Played:
        made.append(Played(play))
        return made[-1]

    try:
        yield make
    finally:
        for one in made:
            one.end()
