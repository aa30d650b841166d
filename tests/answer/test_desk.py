"""Several askers at one model: streams read in turn, threads, streams that nobody reads, and errors that end all."""

import math
import random
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from roslin.answer import Answer, AnswerStream, AnswerText, Roslin
from roslin.errors import MachineError
from roslin.model import Decoder
from roslin.tokens import Tokenizer
from tiny_decoders import tiny_decoder

QUESTIONS = ["Why?", "Tell me a tale of two sheep.", "Count from one to ten, please.", "What?", "When?"]


@pytest.fixture
def model(base_folder: Path) -> Roslin:
    tokenizer = Tokenizer.load(base_folder)
    tokenizer.add_keys()
    return Roslin(tiny_decoder("gpt_neox", vocab_rows=tokenizer.size), tokenizer, max_batch=3)


def whole(model: Roslin, question: str) -> Answer:
    return model.answer(question, seed=7, max_new_tokens=30)


def stream(model: Roslin, question: str) -> AnswerStream:
    return model.stream(question, seed=7, max_new_tokens=30)


def test_streams_read_in_turn_do_not_mix(model: Roslin) -> None:
    alone = [whole(model, question).text for question in QUESTIONS]
    streams = [stream(model, question) for question in QUESTIONS]
    texts = [""] * len(streams)
    reading = set(range(len(streams)))
    while reading:
        for number in sorted(reading):
            piece = next(streams[number], None)
            if piece is None:
                reading.remove(number)
            texts[number] += piece or ""
        assert whole(model, "Why?").text == alone[0]
    assert texts == alone == [s.whole().text for s in streams]


def test_threads_get_what_they_get_alone(model: Roslin) -> None:
    alone = [whole(model, question).text for question in QUESTIONS]

    def ask(number: int) -> bool:
        question, text = QUESTIONS[number % 5], alone[number % 5]
        if number % 4 == 0:
            return text.startswith(next(stream(model, question), ""))  # read once and left
        ways = [lambda: whole(model, question), lambda: stream(model, question).whole()]
        return "".join(stream(model, question)) == text if number % 4 == 1 else ways[number % 2]().text == text

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(ask, range(60), timeout=300))


@pytest.mark.parametrize("pieces", [0, 1])
def test_a_stream_that_nobody_reads_any_more_costs_nothing(model: Roslin, pieces: int) -> None:
    left = [stream(model, question) for question in QUESTIONS]
    for one in left:
        for _ in range(pieces):
            next(one, None)
    del left, one
    model.answer("Why?", max_new_tokens=1)
    assert not model._desk._engine.busy


def test_a_stop_string_ends_a_stream_that_is_read_later(reciting: Callable[[str], Roslin]) -> None:
    model = reciting("one two three four five six seven eight")
    waiting = model.stream("Count.", stop="three", greedy=True)
    model.answer("Count.", greedy=True)
    assert waiting.answer is None
    assert "".join(waiting) == "one two"
    assert waiting.whole().timings.tokens < model.answer("Count.", greedy=True).timings.tokens


def test_an_error_ends_every_answer_and_each_reader_is_told(model: Roslin) -> None:
    assert isinstance(model.decoder, Decoder)
    before = whole(model, "Why?")
    waiting = stream(model, "Why?")
    next(waiting)
    weight = model.decoder.norm.weight.data
    kept = weight.clone()
    weight[3] = math.nan
    with pytest.raises(MachineError, match="stop being numbers"):
        whole(model, "What?")
    weight.copy_(kept)
    for read in (waiting.whole, lambda: list(waiting)):
        with pytest.raises(MachineError, match=r"broken off .*stop being numbers.* ask again"):
            read()
    assert whole(model, "Why?").tokens == before.tokens


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_an_error_while_tokens_are_handed_out_is_told_to_every_reader(
    model: Roslin, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = stream(model, "Why?"), stream(model, "When?")
    next(first, None)

    def fail(*_: object) -> str:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(AnswerText, "push", fail)
        with pytest.raises(error):
            first.whole()
    with pytest.raises(MachineError, match="broken off"):
        second.whole()
    assert not model._desk._engine.busy
    assert whole(model, "Why?").text


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_ctrl_c_at_any_moment_leaves_a_model_that_answers(model: Roslin) -> None:
    expected = whole(model, "Why?").text
    rng = random.Random(0)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(40):
            with suppress(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.001, 0.01))
                for _ in range(50):  # an end, since an interrupt that falls into a finalizer is swallowed by Python
                    whole(model, "Count from one to ten, please.")
            assert torch.is_grad_enabled()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    found: list[str] = []
    other = threading.Thread(target=lambda: found.append(whole(model, "Why?").text), daemon=True)
    other.start()  # another thread could not get a lock that was left behind
    other.join(60)
    assert found == [expected]
