"""A tiny random model behind a real server on a port of its own."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from roslin.answer import Roslin
from roslin.engine import Engine, Event
from roslin.model import load_decoder
from roslin.tokens import Tokenizer
from served import QUESTION, Running
from tiny import tiny_gpt_neox


@pytest.fixture(scope="session")
def roslin(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Roslin:
    folder = tmp_path_factory.mktemp("tiny-served")
    tiny_gpt_neox(folder, vocab_size=8200)
    tokenizer = Tokenizer.load(base_folder)
    tokenizer.add_keys()
    return Roslin(load_decoder(folder), tokenizer)


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


@pytest.fixture(scope="module")
def long_seed(roslin: Roslin) -> int:
    """A seed with which the model does not end its answer by itself."""
    answers = ((seed, roslin.answer(QUESTION, seed=seed, max_new_tokens=450)) for seed in range(100))
    return next(seed for seed, answer in answers if answer.finish_reason == "length")


@pytest.fixture
def watched(run_server: Callable[..., Running], caplog: pytest.LogCaptureFixture) -> Iterator[Running]:
    """A server whose log is in `caplog`."""
    made = run_server()
    logger = logging.getLogger("uvicorn.error")
    logger.addHandler(caplog.handler)
    yield made
    logger.removeHandler(caplog.handler)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Slows the engine down, so that an answer of 450 tokens takes seconds; an entry for each step it makes."""
    made: list[float] = []
    step = Engine.step

    def slow(engine: Engine) -> list[Event]:
        time.sleep(0.01)
        made.append(time.monotonic())
        return step(engine)

    monkeypatch.setattr(Engine, "step", slow)
    return made
