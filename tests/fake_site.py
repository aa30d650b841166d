"""A site of repositories on this machine: what fakes of hubs have in common. It records each request and its bytes."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

READS = ("GET", "HEAD")
HANG_UP = -1
"""The status of a request that gets no answer: the connection is closed."""


@dataclass
class Repo:
    private: bool
    branches: dict[str, dict[str, bytes]]
    commits: list[tuple[str, str, list[str]]] = field(default_factory=list)
    """Branch, message and files of each."""
    tags: dict[str, dict[str, bytes]] = field(default_factory=dict)


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, str]
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def token(self) -> str | None:
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None


@dataclass
class Answer:
    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)


def of(values: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, json.dumps(values).encode(), headers)


class Site:
    """Repositories, the store of large files, and all that was asked. A subclass answers as its hub does."""

    trunk = "main"

    def __init__(self) -> None:
        self.address = ""
        self.repos: dict[str, Repo] = {}
        self.store: dict[str, bytes] = {}
        self.asked: list[Asked] = []
        self.disturb: Callable[[Asked], Answer | int | None] = lambda asked: None
        """What to answer a request with, or its status, instead of doing what it asks."""
        self.lose: Callable[[Asked], bool] = lambda asked: False
        """Whether what is asked is done, and the reply lost."""

    def answer(self, asked: Asked) -> Answer:
        raise NotImplementedError

    @property
    def writes(self) -> list[str]:
        """Whatever was asked that could change something."""
        return [f"{asked.method} {asked.path}" for asked in self.asked if asked.method not in READS]

    @property
    def sent(self) -> dict[str, bytes]:
        """What came into the store of large files, by the path of the request."""
        return {asked.path: asked.body for asked in self.asked if asked.method == "PUT"}

    def files(self, name: str, branch: str | None = None) -> dict[str, bytes]:
        return self.repos[name].branches[branch or self.trunk]


def refusing_once(words: str, answer: Answer) -> Callable[[Asked], Answer | None]:
    """A disturbance: the first request with these words in its path gets this answer."""
    left = [answer]
    return lambda asked: left.pop() if words in asked.path and left else None


@contextmanager
def serving(site: Site) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def handle_any(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
            asked = Asked(
                self.command, unquote(parts.path), query, b"", {k.lower(): v for k, v in self.headers.items()}
            )
            asked.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            site.asked.append(asked)
            instead = site.disturb(asked)
            answer = site.answer(asked) if instead is None else Answer(instead) if isinstance(instead, int) else instead
            if answer.status == HANG_UP or site.lose(asked):
                self.close_connection = True
                return
            self.send_response(answer.status)
            for key, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    site.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def commit_of(repo: Repo, branch: str) -> str:
    return hashlib.sha1(json.dumps([branch, repo.commits], sort_keys=True).encode()).hexdigest()
