"""A tiny random model behind a real server on a port of its own."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from roslin.answer import Roslin
from roslin.model import load_decoder
from roslin.serve import Server, Worker, make_app, open_socket
from roslin.serve.run import address
from roslin.tokens import Tokenizer
from tiny import tiny_gpt_neox


@pytest.fixture(scope="session")
def roslin(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Roslin:
    folder = tmp_path_factory.mktemp("tiny-served")
    tiny_gpt_neox(folder, vocab_size=8200)
    tokenizer = Tokenizer.load(base_folder)
    tokenizer.add_keys()
    return Roslin(load_decoder(folder), tokenizer)


class Running:
    """A server on a thread, and a client for it."""

    def __init__(self, roslin: Roslin, *, api_key: str | None = None, **limits: int) -> None:
        self.worker = Worker(roslin, **limits)
        self.server = Server(make_app(self.worker, "tiny", api_key), self.worker)
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


@pytest.fixture(scope="session")
def running(roslin: Roslin) -> Iterator[Running]:
    made = Running(roslin)
    yield made
    made.end()


@pytest.fixture
def run_server(roslin: Roslin) -> Iterator[Callable[..., Running]]:
    """Makes servers that a test has to itself."""
    made: list[Running] = []

    def make(**settings: object) -> Running:
        made.append(Running(roslin, **settings))
        return made[-1]

    yield make
    for one in made:
        one.end()
