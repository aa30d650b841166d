"""The server as its clients see it: the same answers as in Python, and errors that say what is wrong."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from roslin.answer import Roslin
from roslin.engine import Engine, Event
from roslin.errors import MachineError
from roslin.model import Decoder

if TYPE_CHECKING:
    from conftest import Running

QUESTION = "Name three birds of the river."
CHAT, TEXT = "v1/chat/completions", "v1/completions"


def chat_body(question: str = QUESTION, **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": question}], "seed": 7, "max_tokens": 24, **more}


def text_body(prompt: Any = QUESTION, **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "prompt": prompt, "seed": 7, "max_tokens": 24, **more}


def posted(running: "Running", path: str, body: dict[str, Any]) -> dict[str, Any]:
    reply = running.client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def streamed(running: "Running", path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """All events but the last, which must be [DONE]."""
    with running.client.stream("POST", path, json=body | {"stream": True}) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in reply.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def refused(running: "Running", path: str, body: Any, status: int) -> str:
    reply = running.client.post(path, json=body)
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error["message"]


@pytest.fixture(scope="module")
def long_seed(roslin: Roslin) -> int:
    """A seed with which the model does not end its answer by itself."""
    answers = ((seed, roslin.answer(QUESTION, seed=seed, max_new_tokens=450)) for seed in range(100))
    return next(seed for seed, answer in answers if answer.finish_reason == "length")


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


class TestSameAsInPython:
    def test_chat_gives_the_answer_of_the_same_seed(self, running: "Running", roslin: Roslin) -> None:
        expected = roslin.answer(QUESTION, seed=7, max_new_tokens=24)
        reply = posted(running, CHAT, chat_body())
        [choice] = reply["choices"]
        assert choice["message"] == {"role": "assistant", "content": expected.text, "refusal": None}
        assert choice["finish_reason"] == expected.finish_reason
        assert (reply["object"], reply["model"], reply["seed"]) == ("chat.completion", "tiny", 7)
        prompt_tokens = len(roslin.prompts.ids(QUESTION, None))
        assert reply["usage"] == {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": len(expected.tokens),
            "total_tokens": prompt_tokens + len(expected.tokens),
        }

    def test_a_prompt_is_an_instruction(self, running: "Running", roslin: Roslin) -> None:
        expected = roslin.answer(QUESTION, seed=7, max_new_tokens=24, temperature=0.7, top_p=0.8)
        reply = posted(running, TEXT, text_body(temperature=0.7, top_p=0.8))
        assert reply["object"] == "text_completion"
        assert [choice["text"] for choice in reply["choices"]] == [expected.text]

    def test_temperature_0_is_greedy(self, running: "Running", roslin: Roslin) -> None:
        expected = roslin.answer(QUESTION, greedy=True, max_new_tokens=24)
        assert posted(running, CHAT, chat_body(temperature=0))["choices"][0]["message"]["content"] == expected.text

    def test_n_answers(self, running: "Running", roslin: Roslin) -> None:
        expected = roslin.answer(QUESTION, returns=3, seed=7, max_new_tokens=24)
        reply = posted(running, CHAT, chat_body(n=3))
        assert [c["message"]["content"] for c in reply["choices"]] == [answer.text for answer in expected]
        assert [c["index"] for c in reply["choices"]] == [0, 1, 2]
        assert reply["usage"]["completion_tokens"] == sum(len(answer.tokens) for answer in expected)
        assert reply["usage"]["prompt_tokens"] == len(roslin.prompts.ids(QUESTION, None))

    def test_several_prompts(self, running: "Running", roslin: Roslin) -> None:
        prompts = [QUESTION, "What is a sheep?"]
        expected = [roslin.answer(p, returns=2, seed=7, max_new_tokens=24) for p in prompts]
        reply = posted(running, TEXT, text_body(prompts, n=2))
        assert [c["text"] for c in reply["choices"]] == [answer.text for pair in expected for answer in pair]
        assert reply["usage"]["prompt_tokens"] == sum(len(roslin.prompts.ids(p, None)) for p in prompts)

    def test_a_fresh_seed_is_told_and_repeats_the_answer(self, running: "Running", roslin: Roslin) -> None:
        reply = posted(running, CHAT, chat_body(seed=None))
        again = roslin.answer(QUESTION, seed=reply["seed"], max_new_tokens=24)
        assert reply["choices"][0]["message"]["content"] == again.text

    def test_earlier_messages_are_the_context(self, running: "Running", roslin: Roslin) -> None:
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Who was Dolly?"},
            {"role": "assistant", "content": None},
            {"role": "assistant", "content": "A sheep."},
            {"role": "user", "content": [{"type": "text", "text": "Where "}, {"type": "text", "text": "born?"}]},
        ]
        context = "Be brief.\n\nUser: Who was Dolly?\n\nAssistant: A sheep."
        expected = roslin.answer("Where born?", context, seed=7, max_new_tokens=24)
        reply = posted(running, CHAT, chat_body(messages=messages))
        assert reply["choices"][0]["message"]["content"] == expected.text
        assert expected.text != roslin.answer("Where born?", seed=7, max_new_tokens=24).text

    def test_without_a_limit_an_answer_ends_where_the_positions_do(self, running: "Running", roslin: Roslin) -> None:
        long = "river " * 300
        reply = posted(running, CHAT, chat_body(long, max_tokens=None))
        room = roslin.decoder.config.positions - len(roslin.prompts.ids(long, None))
        assert room < 256
        assert reply["usage"]["completion_tokens"] == room
        assert reply["choices"][0]["finish_reason"] == "length"

    def test_eight_at_once_answer_as_alone(self, running: "Running", roslin: Roslin) -> None:
        questions = [f"What are the {number} oldest towns?" for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(lambda q: posted(running, CHAT, chat_body(q, seed=11)), questions))
        expected = [roslin.answer(q, seed=11, max_new_tokens=24).text for q in questions]
        assert [reply["choices"][0]["message"]["content"] for reply in replies] == expected


class TestStops:
    @pytest.fixture
    def stop(self, roslin: Roslin) -> str:
        """Some characters from the middle of an answer."""
        text = roslin.answer(QUESTION, seed=7, max_new_tokens=24).text
        return text[len(text) // 2 : len(text) // 2 + 3]

    def test_a_stop_string_ends_the_answer(self, running: "Running", roslin: Roslin, stop: str) -> None:
        expected = roslin.answer(QUESTION, seed=7, max_new_tokens=24, stop=stop)
        assert expected.finish_reason == "stop"
        for sent in (stop, ["never to be said", stop]):
            reply = posted(running, CHAT, chat_body(stop=sent))
            assert reply["choices"][0]["message"]["content"] == expected.text
            assert reply["choices"][0]["finish_reason"] == "stop"
            assert reply["usage"]["completion_tokens"] == len(expected.tokens)
        running.wait_for_answers(0)

    def test_a_stream_never_shows_it(self, running: "Running", roslin: Roslin, stop: str) -> None:
        expected = roslin.answer(QUESTION, seed=7, max_new_tokens=24, stop=stop)
        events = streamed(running, TEXT, text_body(stop=stop))
        assert "".join(event["choices"][0]["text"] for event in events) == expected.text
        assert events[-1]["choices"][0]["finish_reason"] == "stop"


class TestStreams:
    def test_pieces_join_to_the_whole(self, running: "Running", roslin: Roslin) -> None:
        expected = roslin.answer(QUESTION, seed=7, max_new_tokens=24)
        events = streamed(running, CHAT, chat_body())
        deltas = [event["choices"][0]["delta"] for event in events]
        assert deltas[0] == {"role": "assistant", "content": ""}
        assert "".join(delta.get("content", "") for delta in deltas) == expected.text
        assert len(events) > 5
        assert {event["object"] for event in events} == {"chat.completion.chunk"}
        assert len({event["id"] for event in events}) == 1
        reasons = [event["choices"][0]["finish_reason"] for event in events]
        assert reasons == [None] * (len(events) - 1) + ["length"]

    def test_several_answers_are_told_apart(self, running: "Running", roslin: Roslin) -> None:
        expected = roslin.answer(QUESTION, returns=2, seed=7, max_new_tokens=24)
        texts = ["", ""]
        for event in streamed(running, TEXT, text_body(n=2)):
            [choice] = event["choices"]
            texts[choice["index"]] += choice["text"]
        assert texts == [answer.text for answer in expected]

    def test_token_counts_come_last_when_asked_for(self, running: "Running") -> None:
        whole = posted(running, CHAT, chat_body())
        events = streamed(running, CHAT, chat_body(stream_options={"include_usage": True}))
        assert events[-1]["choices"] == []
        assert events[-1]["usage"] == whole["usage"]
        assert not any("usage" in event for event in events[:-1])


class TestLogprobs:
    def test_of_a_chat(self, running: "Running", roslin: Roslin) -> None:
        expected = roslin.answer(QUESTION, seed=7, max_new_tokens=24, logprobs=2).logprobs
        assert expected
        found = posted(running, CHAT, chat_body(logprobs=True, top_logprobs=2))["choices"][0]["logprobs"]["content"]
        assert [entry["token"] for entry in found] == [token.text for token in expected]
        assert [entry["logprob"] for entry in found] == pytest.approx([token.logprob for token in expected], abs=1e-4)
        for entry, token in zip(found, expected, strict=True):
            assert [top["token"] for top in entry["top_logprobs"]] == [top.text for top in token.top]
            assert entry["bytes"] is None or bytes(entry["bytes"]).decode() == entry["token"]

    def test_of_a_chat_without_alternatives(self, running: "Running") -> None:
        [choice] = posted(running, CHAT, chat_body(logprobs=True))["choices"]
        assert len(choice["logprobs"]["content"]) == 24
        assert all(entry["top_logprobs"] == [] for entry in choice["logprobs"]["content"])
        assert posted(running, CHAT, chat_body())["choices"][0]["logprobs"] is None

    @pytest.mark.parametrize("as_stream", [False, True])
    def test_of_a_completion(self, running: "Running", roslin: Roslin, as_stream: bool) -> None:
        expected = roslin.answer(QUESTION, seed=7, max_new_tokens=24, logprobs=3).logprobs
        assert expected
        body = text_body(logprobs=3)
        replies = streamed(running, TEXT, body) if as_stream else [posted(running, TEXT, body)]
        columns = [reply["choices"][0]["logprobs"] for reply in replies if reply["choices"][0]["logprobs"]]
        joined = {name: [value for part in columns for value in part[name]] for name in columns[0]}
        texts = [token.text for token in expected]
        assert joined["tokens"] == texts
        assert joined["token_logprobs"] == pytest.approx([token.logprob for token in expected], abs=1e-4)
        assert joined["text_offset"] == [len("".join(texts[:place])) for place in range(len(texts))]
        assert [set(top) for top in joined["top_logprobs"]] == [{top.text for top in token.top} for token in expected]


class TestErrors:
    def test_all_faults_of_a_body_at_once(self, running: "Running") -> None:
        body = {"messages": [{"role": "user", "content": 3}], "temperature": "hot", "n": 0, "top_p": 2, "stop": [""]}
        message = refused(running, CHAT, body, 400)
        assert [line.partition(":")[0] for line in message.splitlines()] == [
            "temperature",
            "top_p",
            "stop.0",
            "n",
            "messages.0.content",
        ]

    @pytest.mark.parametrize(
        ("path", "body", "said"),
        [
            (CHAT, chat_body(messages=[]), "messages"),
            (CHAT, chat_body(messages=[{"role": "assistant", "content": "Hello"}]), "the last one must be the user's"),
            (CHAT, chat_body(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), "type text"),
            (CHAT, chat_body("  "), "instruction is empty"),
            (CHAT, chat_body(top_logprobs=2), "needs logprobs"),
            (CHAT, chat_body(max_tokens=5000), "512 positions"),
            (CHAT, chat_body("river " * 2000), "512 positions"),
            (CHAT, chat_body(stream=True, max_tokens=5000), "512 positions"),
            (TEXT, text_body([QUESTION, ""]), "Question 2: the instruction is empty"),
            (TEXT, text_body([1, 2]), "prompt.0"),
            (TEXT, text_body([QUESTION] * 65, n=2), "130 answers"),
            (TEXT, text_body(max_tokens=True), "max_tokens"),
            (TEXT, text_body(seed=2**70), "seed"),
            (TEXT, ["no object"], "object"),
        ],
    )
    def test_bad_input_is_400(self, running: "Running", path: str, body: Any, said: str) -> None:
        assert said in refused(running, path, body, 400)

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"prompt": "\\ud800"}', b"[" * 100_000])
    def test_what_is_no_json_is_400(self, running: "Running", content: bytes) -> None:
        reply = running.client.post(TEXT, content=content, headers={"Content-Type": "application/json"})
        assert reply.status_code == 400
        assert "JSON" in reply.json()["error"]["message"]

    def test_another_content_type_and_a_huge_body_are_refused(self, running: "Running") -> None:
        assert running.client.post(TEXT, data={"prompt": QUESTION}).status_code == 415
        assert "longer than" in refused(running, TEXT, text_body("x" * 5_000_000), 413)

    def test_unknown_models_and_paths_are_404(self, running: "Running") -> None:
        assert "'tiny'" in refused(running, CHAT, chat_body(model="gpt-4"), 404)
        for path in ("v1/models/gpt-4", "v1/embeddings"):
            assert running.client.get(path).json()["error"]["code"] == "not_found"

    def test_unknown_and_null_fields_are_ignored(self, running: "Running") -> None:
        body = chat_body(
            user="me", frequency_penalty=0, stop=None, n=None, stream=None, logprobs=None, temperature=None
        )
        assert posted(running, CHAT, body)["choices"] == posted(running, CHAT, chat_body())["choices"]

    def test_a_key_is_asked_for(self, run_server: Callable[..., "Running"]) -> None:
        guarded = run_server(api_key="secret")
        assert "API key" in refused(guarded, CHAT, chat_body(), 401)
        for sent in ("Bearer wrong", "Bearer", "secréé"):
            assert guarded.client.get("v1/models", headers={"Authorization": sent.encode()}).status_code == 401
        right = {"Authorization": "Bearer secret"}
        assert guarded.client.get("v1/models", headers=right).status_code == 200
        assert guarded.client.post(CHAT, json=chat_body(), headers=right).status_code == 200
        assert guarded.client.get("/").status_code == 200
        assert guarded.client.get("health").json()["needs_key"] is True


class TestSlots:
    def test_a_client_that_leaves_a_stream_frees_its_slot(
        self, run_server: Callable[..., "Running"], roslin: Roslin, long_seed: int, steps: list[float]
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
        self, run_server: Callable[..., "Running"], long_seed: int, steps: list[float]
    ) -> None:
        single = run_server(max_batch=1)
        with pytest.raises(httpx.ReadTimeout):
            single.client.post(TEXT, json=text_body(n=4, max_tokens=450, seed=long_seed), timeout=0.5)
        single.wait_for_answers(0)
        assert len(steps) < 450

    def test_a_late_client_joins_those_that_are_running(
        self, run_server: Callable[..., "Running"], long_seed: int, steps: list[float]
    ) -> None:
        both = run_server(max_batch=2)
        long = chat_body(max_tokens=450, seed=long_seed, stream=True)
        with both.client.stream("POST", CHAT, json=long) as reply:
            lines = reply.iter_lines()
            next(lines)
            posted(both, CHAT, chat_body())
            assert both.worker.open_answers == 1
            assert len(steps) < 450

    def test_a_full_queue_says_when_to_come_again(self, run_server: Callable[..., "Running"]) -> None:
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
        self, run_server: Callable[..., "Running"], monkeypatch: pytest.MonkeyPatch, failure: Exception, said: str
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

    def test_the_server_ends_with_streams_open(
        self, run_server: Callable[..., "Running"], long_seed: int, steps: list[float]
    ) -> None:
        ending = run_server()
        long = chat_body(max_tokens=450, seed=long_seed, stream=True)
        with ending.client.stream("POST", CHAT, json=long) as reply:
            lines = reply.iter_lines()
            next(lines)
            ending.server.should_exit = True
            assert "shutting down" in [line for line in lines if line][-1]
        assert not ending.worker.alive


class TestPage:
    def test_the_page_loads_nothing_from_elsewhere(self, running: "Running") -> None:
        reply = running.client.get("/")
        assert reply.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert "http://" not in reply.text
        assert "https://" not in reply.text

    def test_every_field_has_a_label(self, running: "Running") -> None:
        page = running.client.get("/").text
        for name in ("question", "context"):
            assert f'<label for="{name}">' in page
        assert "innerHTML" not in page

    def test_health_and_models(self, running: "Running") -> None:
        health = running.client.get("health").json()
        assert (health["status"], health["model"], health["needs_key"]) == ("ok", "tiny", False)
        [model] = running.client.get("v1/models").json()["data"]
        assert model["id"] == "tiny"
        assert running.client.get("v1/models/tiny").json() == model
