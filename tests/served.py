"""A server on a thread, and what the tests of it ask."""

import json
import socket
import threading
import time
from typing import Any

import httpx

from roslin.answer import Roslin
from roslin.serve import Server, Worker, make_app, open_socket
from roslin.serve.run import address

QUESTION = "Name three birds of the river."
CHAT, TEXT = "v1/chat/completions", "v1/completions"


class Running:
    """A server on a thread, and a client for it."""

    def __init__(self, roslin: Roslin, *, api_key: str | None = None, only_local: bool = False, **limits: int) -> None:
        self.worker = Worker(roslin, **limits)
        self.server = Server(make_app(self.worker, "tiny", api_key, only_local=only_local), self.worker)
        listening = open_socket("127.0.0.1", 0)
        self.client = httpx.Client(base_url=address(listening), timeout=60)
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listening]})
        self.worker.start()
        self._thread.start()

    def end(self) -> None:
        self.server.should_exit = True
        self._thread.join()
        self.client.close()

    def wait_for_answers(self, count: int) -> None:
        """Until exactly so many run or wait; a test that never gets there fails by its own time limit."""
        for _ in range(3000):
            if self.worker.open_answers == count:
                return
            time.sleep(0.01)
        raise AssertionError(f"{self.worker.open_answers} answers are open, not {count}")


def chat_body(question: str = QUESTION, **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": question}], "seed": 7, "max_tokens": 24, **more}


def text_body(prompt: Any = QUESTION, **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "prompt": prompt, "seed": 7, "max_tokens": 24, **more}


def posted(running: Running, path: str, body: dict[str, Any]) -> dict[str, Any]:
    reply = running.client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def streamed(running: Running, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """All events but the last, which must be [DONE]."""
    with running.client.stream("POST", path, json=body | {"stream": True}) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in reply.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def refused(running: Running, path: str, body: Any, status: int) -> str:
    reply = running.client.post(path, json=body)
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error["message"]


def half_a_question(running: Running) -> socket.socket:
    """A client whose call the server is reading, and which says no more."""
    client = socket.create_connection((running.client.base_url.host, running.client.base_url.port))
    head = [
        f"POST /{TEXT} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        "Content-Length: 100",
        "Expect: 100-continue",
    ]
    client.sendall("\r\n".join([*head, "", "{"]).encode())
    assert b"100 Continue" in client.recv(100)
    return client
