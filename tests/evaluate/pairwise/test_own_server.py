"""Roslin's own server as the endpoint: the wire is the real one, and its small base knows no form to keep to."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from pairwise_played import key_of
from roslin.answer import Roslin
from roslin.evaluate.pairwise import Endpoint, JudgeUnusable, ModelJudge, Notebook, ask_about
from served import Running


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        running = Running(Roslin.load("base"), api_key="sesame")
    yield running
    running.end()


def endpoint(server: Running, **settings: object) -> Endpoint:
    given: dict[str, object] = {"api_key": "sesame", "max_tokens": 12, "temperature": 0.0, **settings}
    return Endpoint(f"{server.client.base_url}v1", "tiny", **given)


def test_the_base_gives_no_verdict_and_none_is_made_up(server: Running, tmp_path: Path) -> None:
    replies: list[str] = []
    asked = endpoint(server)

    def chat(messages: object) -> str:
        replies.append(asked.chat(messages))
        return replies[-1]

    kept = Notebook(tmp_path / "n.jsonl", {"sheet": "s"})
    found = ask_about(key_of("ab").pairs, ModelJudge(chat, attempts=2), kept, at_once=2)
    assert kept.verdicts == {}
    assert sorted(found.failures) == [1, 2]
    assert all("2 replies without a clear verdict" in reason for reason in found.failures.values())
    assert len(replies) == 4
    question = [{"role": "user", "content": "Name three birds of the river."}]
    body = {"model": "tiny", "messages": question, "temperature": 0.0, "max_tokens": 12}
    reply = server.client.post("v1/chat/completions", json=body, headers={"Authorization": "Bearer sesame"}).json()
    assert asked.chat(question) == reply["choices"][0]["message"]["content"] != ""


def test_its_refusals_are_understood(server: Running) -> None:
    question = [{"role": "user", "content": "Which?"}]
    with pytest.raises(JudgeUnusable, match=r"401 .*API key is missing or wrong"):
        endpoint(server, api_key="simsala").chat(question)
    with pytest.raises(JudgeUnusable, match=r"404 .*There is no model"):
        Endpoint(f"{server.client.base_url}v1", "other", "sesame").chat(question)
