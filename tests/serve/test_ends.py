"""How calls and the server end: slots are freed, failures told, and nobody is kept waiting."""

import json
import signal
import time
from collections.abc import Callable
from queue import SimpleQueue

import httpx
import pytest

from roslin.answer import Roslin
from roslin.engine import Engine
from roslin.errors import MachineError
from roslin.model import Decoder
from served import CHAT, QUESTION, TEXT, Running, chat_body, half_a_question, posted, refused, text_body


class TestSlots:
    def test_a_client_that_leaves_a_stream_frees_its_slot(
        self, run_server: Callable[..., Running], roslin: Roslin, long_seed: int, steps: list[float]
    ) -> None:
        single = run_server(max_batch=1)
        endless = chat_body(max_tokens=450, seed=long_seed, stream=True)
        with (
            httpx.Client(base_url=single.client.base_url) as leaving,
            leaving.stream("POST", CHAT, json=endless) as reply,
        ):
            lines = reply.iter_lines()  # kept: httpx closes the reply when its iterator goes
            next(lines)
            single.wait_for_answers(1)
        single.wait_for_answers(0)
        assert len(steps) < 450
        expected = roslin.answer(QUESTION, seed=7, max_new_tokens=24).text
        assert posted(single, CHAT, chat_body())["choices"][0]["message"]["content"] == expected

    def test_so_does_one_that_leaves_before_a_whole_reply(
        self, run_server: Callable[..., Running], long_seed: int, steps: list[float]
    ) -> None:
        single = run_server(max_batch=1)
        with pytest.raises(httpx.ReadTimeout):
            single.client.post(TEXT, json=text_body(n=4, max_tokens=450, seed=long_seed), timeout=0.5)
        single.wait_for_answers(0)
        assert len(steps) < 450

    def test_a_late_client_joins_those_that_are_running(
        self, run_server: Callable[..., Running], long_seed: int, steps: list[float]
    ) -> None:
        both = run_server(max_batch=2)
        long = chat_body(max_tokens=450, seed=long_seed, stream=True)
        with both.client.stream("POST", CHAT, json=long) as reply:
            lines = reply.iter_lines()
            next(lines)
            posted(both, CHAT, chat_body())
            assert both.worker.open_answers == 1
            assert len(steps) < 450

    def test_a_server_outlives_an_engine_that_cannot_prepare_yet(
        self, run_server: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []

        def prepare(engine: Engine) -> None:
            asked.append(engine)
            if len(asked) < 3:
                raise RuntimeError("no graph yet")

        monkeypatch.setattr(Engine, "prepare", prepare)
        running = run_server()
        assert "The engine failed" in refused(running, CHAT, chat_body(), 500)
        assert posted(running, CHAT, chat_body())["choices"]
        assert len(asked) == 3

    def test_a_full_queue_says_when_to_come_again(self, run_server: Callable[..., Running]) -> None:
        small = run_server(max_batch=1, max_waiting=2)
        posted(small, TEXT, text_body(n=3))
        reply = small.client.post(TEXT, json=text_body(n=4))
        assert reply.status_code == 503
        assert int(reply.headers["Retry-After"]) > 0
        assert "queue is full" in reply.json()["error"]["message"]
        posted(small, TEXT, text_body(n=3))


class TestFailures:
    @pytest.mark.parametrize(
        ("failure", "said"),
        [
            (MachineError("Out of memory on cpu."), "Out of memory on cpu."),
            (RuntimeError("a fault"), "the server's log"),
        ],
    )
    def test_an_engine_that_fails_says_so_and_goes_on(
        self, run_server: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, failure: Exception, said: str
    ) -> None:
        failing = run_server()
        run = Decoder.hidden

        def fail(*_: object) -> None:
            raise failure

        monkeypatch.setattr(Decoder, "hidden", fail)
        assert said in refused(failing, CHAT, chat_body(n=2), 500)
        with failing.client.stream("POST", CHAT, json=chat_body(stream=True)) as reply:
            [*_, last] = [line for line in reply.iter_lines() if line]
        assert said in json.loads(last.removeprefix("data: "))["error"]["message"]
        monkeypatch.setattr(Decoder, "hidden", run)
        failing.wait_for_answers(0)
        posted(failing, CHAT, chat_body())

    def test_a_client_that_leaves_amid_its_question_is_no_fault(
        self, watched: Running, caplog: pytest.LogCaptureFixture
    ) -> None:
        half_a_question(watched).close()
        watched.end()
        assert caplog.messages == []

    def test_a_client_that_only_waits_does_not_hold_up_the_end(
        self, watched: Running, caplog: pytest.LogCaptureFixture
    ) -> None:
        with half_a_question(watched):
            for _ in range(2):  # people press Ctrl-C twice
                watched.server.handle_exit(signal.SIGINT, None)
            watched.end()
        assert caplog.messages == []

    def test_the_end_is_told_however_late_its_order_comes(
        self,
        run_server: Callable[..., Running],
        long_seed: int,
        steps: list[float],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        class Late(SimpleQueue[Callable[[], None]]):
            def put(self, item: Callable[[], None], block: bool = True, timeout: float | None = None) -> None:
                time.sleep(0.1)
                super().put(item, block, timeout)

        monkeypatch.setattr("roslin.serve.worker.SimpleQueue", Late)
        ending = run_server()
        long = chat_body(max_tokens=450, seed=long_seed, stream=True)
        with ending.client.stream("POST", CHAT, json=long) as reply:
            lines = reply.iter_lines()
            next(lines)
            ending.server.should_exit = True
            assert "shutting down" in [line for line in lines if line][-1]

    def test_the_server_ends_with_streams_open(
        self, run_server: Callable[..., Running], long_seed: int, steps: list[float]
    ) -> None:
        ending = run_server()
        long = chat_body(max_tokens=450, seed=long_seed, stream=True)
        with ending.client.stream("POST", CHAT, json=long) as reply:
            lines = reply.iter_lines()
            next(lines)
            ending.server.should_exit = True
            assert "shutting down" in [line for line in lines if line][-1]
        assert not ending.worker.alive
