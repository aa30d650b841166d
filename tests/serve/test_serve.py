"""The server as its clients see it: the same answers as in Python, and errors that say what is wrong."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from roslin.answer import Roslin
from roslin.errors import UsageError
from roslin.serve import Server, open_socket, serve
from served import CHAT, QUESTION, TEXT, Running, chat_body, posted, refused, streamed, text_body


class TestSameAsInPython:
    def test_chat_gives_the_answer_of_the_same_seed(self, running: Running, roslin: Roslin) -> None:
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

    def test_a_prompt_is_an_instruction(self, running: Running, roslin: Roslin) -> None:
        expected = roslin.answer(QUESTION, seed=7, max_new_tokens=24, temperature=0.7, top_p=0.8)
        reply = posted(running, TEXT, text_body(temperature=0.7, top_p=0.8))
        assert reply["object"] == "text_completion"
        assert [choice["text"] for choice in reply["choices"]] == [expected.text]

    def test_temperature_0_is_greedy(self, running: Running, roslin: Roslin) -> None:
        expected = roslin.answer(QUESTION, greedy=True, max_new_tokens=24)
        assert posted(running, CHAT, chat_body(temperature=0))["choices"][0]["message"]["content"] == expected.text

    def test_n_answers(self, running: Running, roslin: Roslin) -> None:
        expected = roslin.answer(QUESTION, returns=3, seed=7, max_new_tokens=24)
        reply = posted(running, CHAT, chat_body(n=3))
        assert [c["message"]["content"] for c in reply["choices"]] == [answer.text for answer in expected]
        assert [c["index"] for c in reply["choices"]] == [0, 1, 2]
        assert reply["usage"]["completion_tokens"] == sum(len(answer.tokens) for answer in expected)
        assert reply["usage"]["prompt_tokens"] == len(roslin.prompts.ids(QUESTION, None))

    def test_several_prompts(self, running: Running, roslin: Roslin) -> None:
        prompts = [QUESTION, "What is a sheep?"]
        expected = [roslin.answer(p, returns=2, seed=7, max_new_tokens=24) for p in prompts]
        reply = posted(running, TEXT, text_body(prompts, n=2))
        assert [c["text"] for c in reply["choices"]] == [answer.text for pair in expected for answer in pair]
        assert reply["usage"]["prompt_tokens"] == sum(len(roslin.prompts.ids(p, None)) for p in prompts)

    def test_a_fresh_seed_is_told_and_repeats_the_answer(self, running: Running, roslin: Roslin) -> None:
        reply = posted(running, CHAT, chat_body(seed=None))
        again = roslin.answer(QUESTION, seed=reply["seed"], max_new_tokens=24)
        assert reply["choices"][0]["message"]["content"] == again.text

    def test_earlier_messages_are_the_context(self, running: Running, roslin: Roslin) -> None:
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

    def test_without_a_limit_an_answer_ends_where_the_positions_do(self, running: Running, roslin: Roslin) -> None:
        long = "river " * 300
        reply = posted(running, CHAT, chat_body(long, max_tokens=None))
        room = roslin.decoder.config.positions - len(roslin.prompts.ids(long, None))
        assert room < 256
        assert reply["usage"]["completion_tokens"] == room
        assert reply["choices"][0]["finish_reason"] == "length"

    def test_eight_at_once_answer_as_alone(self, running: Running, roslin: Roslin) -> None:
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

    def test_a_stop_string_ends_the_answer(self, running: Running, roslin: Roslin, stop: str) -> None:
        expected = roslin.answer(QUESTION, seed=7, max_new_tokens=24, stop=stop)
        assert expected.finish_reason == "stop"
        for sent in (stop, ["never to be said", stop]):
            reply = posted(running, CHAT, chat_body(stop=sent))
            assert reply["choices"][0]["message"]["content"] == expected.text
            assert reply["choices"][0]["finish_reason"] == "stop"
            assert reply["usage"]["completion_tokens"] == len(expected.tokens)
        running.wait_for_answers(0)

    def test_a_stream_never_shows_it(self, running: Running, roslin: Roslin, stop: str) -> None:
        expected = roslin.answer(QUESTION, seed=7, max_new_tokens=24, stop=stop)
        events = streamed(running, TEXT, text_body(stop=stop))
        assert "".join(event["choices"][0]["text"] for event in events) == expected.text
        assert events[-1]["choices"][0]["finish_reason"] == "stop"


class TestStreams:
    def test_pieces_join_to_the_whole(self, running: Running, roslin: Roslin) -> None:
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

    def test_several_answers_are_told_apart(self, running: Running, roslin: Roslin) -> None:
        expected = roslin.answer(QUESTION, returns=2, seed=7, max_new_tokens=24)
        texts = ["", ""]
        for event in streamed(running, TEXT, text_body(n=2)):
            [choice] = event["choices"]
            texts[choice["index"]] += choice["text"]
        assert texts == [answer.text for answer in expected]

    def test_token_counts_come_last_when_asked_for(self, running: Running) -> None:
        whole = posted(running, CHAT, chat_body())
        events = streamed(running, CHAT, chat_body(stream_options={"include_usage": True}))
        assert events[-1]["choices"] == []
        assert events[-1]["usage"] == whole["usage"]
        assert not any("usage" in event for event in events[:-1])


class TestLogprobs:
    def test_of_a_chat(self, running: Running, roslin: Roslin) -> None:
        expected = roslin.answer(QUESTION, seed=7, max_new_tokens=24, logprobs=2).logprobs
        assert expected
        found = posted(running, CHAT, chat_body(logprobs=True, top_logprobs=2))["choices"][0]["logprobs"]["content"]
        assert [entry["token"] for entry in found] == [token.text for token in expected]
        assert [entry["logprob"] for entry in found] == pytest.approx([token.logprob for token in expected], abs=1e-4)
        for entry, token in zip(found, expected, strict=True):
            assert [top["token"] for top in entry["top_logprobs"]] == [top.text for top in token.top]
            assert entry["bytes"] is None or bytes(entry["bytes"]).decode() == entry["token"]

    def test_of_a_chat_without_alternatives(self, running: Running) -> None:
        [choice] = posted(running, CHAT, chat_body(logprobs=True))["choices"]
        assert len(choice["logprobs"]["content"]) == 24
        assert all(entry["top_logprobs"] == [] for entry in choice["logprobs"]["content"])
        assert posted(running, CHAT, chat_body())["choices"][0]["logprobs"] is None

    @pytest.mark.parametrize("as_stream", [False, True])
    def test_of_a_completion(self, running: Running, roslin: Roslin, as_stream: bool) -> None:
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
    def test_all_faults_of_a_body_at_once(self, running: Running) -> None:
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
    def test_bad_input_is_400(self, running: Running, path: str, body: Any, said: str) -> None:
        assert said in refused(running, path, body, 400)

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"prompt": "\\ud800"}', b"[" * 100_000])
    def test_what_is_no_json_is_400(self, running: Running, content: bytes) -> None:
        reply = running.client.post(TEXT, content=content, headers={"Content-Type": "application/json"})
        assert reply.status_code == 400
        assert "JSON" in reply.json()["error"]["message"]

    def test_another_content_type_and_a_huge_body_are_refused(self, running: Running) -> None:
        assert running.client.post(TEXT, data={"prompt": QUESTION}).status_code == 415
        assert "longer than" in refused(running, TEXT, text_body("x" * 5_000_000), 413)

    def test_unknown_models_and_paths_are_404(self, running: Running) -> None:
        assert "'tiny'" in refused(running, CHAT, chat_body(model="gpt-4"), 404)
        for path in ("v1/models/gpt-4", "v1/embeddings"):
            assert running.client.get(path).json()["error"]["code"] == "not_found"

    @pytest.mark.parametrize(("path", "status"), [("chat/completions", 404), ("v1/embeddings", 404), ("health", 405)])
    def test_what_is_not_served_names_what_is(self, running: Running, path: str, status: int) -> None:
        message = refused(running, path, chat_body(), status)
        assert f"POST /{path} is not served here" in message
        assert "POST /v1/chat/completions" in message

    def test_unknown_and_null_fields_are_ignored(self, running: Running) -> None:
        body = chat_body(
            user="me", frequency_penalty=0, stop=None, n=None, stream=None, logprobs=None, temperature=None
        )
        assert posted(running, CHAT, body)["choices"] == posted(running, CHAT, chat_body())["choices"]

    def test_a_key_is_asked_for(self, run_server: Callable[..., Running]) -> None:
        guarded = run_server(api_key="secret")
        assert "API key" in refused(guarded, CHAT, chat_body(), 401)
        for sent in ("Bearer wrong", "Bearer", "secréé"):
            assert guarded.client.get("v1/models", headers={"Authorization": sent.encode()}).status_code == 401
        right = {"Authorization": "Bearer secret"}
        assert guarded.client.get("v1/models", headers=right).status_code == 200
        assert guarded.client.post(CHAT, json=chat_body(), headers=right).status_code == 200
        assert guarded.client.get("/").status_code == 200
        assert guarded.client.get("health").json()["needs_key"] is True


class TestOnlyLocal:
    @pytest.fixture
    def local(self, run_server: Callable[..., Running]) -> Running:
        return run_server(only_local=True)

    @pytest.mark.parametrize(
        "host", ["localhost", "LOCALHOST:8000", "demo.localhost", "127.0.0.1:8000", "[::1]:8000", "[::1]"]
    )
    def test_this_machine_and_addresses_are_answered(self, local: Running, host: str) -> None:
        assert local.client.get("v1/models", headers={"Host": host}).status_code == 200

    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "notlocalhost", ""]
    )
    @pytest.mark.parametrize("path", ["", "health", "v1/models"])
    def test_a_name_that_a_web_page_may_have_pointed_here_is_refused(
        self, local: Running, host: str, path: str
    ) -> None:
        reply = local.client.get(path, headers={"Host": host})
        assert reply.status_code == 403
        assert "localhost" in reply.json()["error"]["message"]

    def test_elsewhere_any_name_will_do(self, running: Running) -> None:
        assert running.client.get("v1/models", headers={"Host": "roslin.example"}).status_code == 200


class TestPage:
    def test_the_page_loads_nothing_from_elsewhere(self, running: Running) -> None:
        reply = running.client.get("/")
        assert reply.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert "http://" not in reply.text
        assert "https://" not in reply.text

    def test_every_field_has_a_label(self, running: Running) -> None:
        page = running.client.get("/").text
        for name in ("question", "context"):
            assert f'<label for="{name}">' in page
        assert "innerHTML" not in page

    def test_health_and_models(self, running: Running) -> None:
        health = running.client.get("health").json()
        assert (health["status"], health["model"], health["needs_key"]) == ("ok", "tiny", False)
        assert health["cache"]["held"] == 0 < health["cache"]["capacity"]
        [model] = running.client.get("v1/models").json()["data"]
        assert model["id"] == "tiny"
        assert running.client.get("v1/models/tiny").json() == model


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", 0), ("127.1.2.3", 0), ("0.0.0.0", 1)])
def test_a_server_that_others_can_reach_says_so(
    roslin: Roslin, monkeypatch: pytest.MonkeyPatch, host: str, warned: int
) -> None:
    async def end(*_: object) -> bool:
        return True

    monkeypatch.setattr(Server, "on_tick", end)
    said: list[str] = []
    try:
        listening = open_socket(host, 0)
    except UsageError:
        pytest.skip(f"this system does not listen on {host}")
    with listening:
        serve(roslin, listening, "tiny", tell=said.append)
    assert sum("--api-key" in line for line in said) == warned
