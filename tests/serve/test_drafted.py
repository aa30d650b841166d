"""A server whose model has a draft gives the answers of one without."""

from concurrent.futures import ThreadPoolExecutor

from guessing import nearly
from roslin.answer import Roslin
from served import CHAT, Running, chat_body, posted


def test_answers_are_those_without_a_draft(roslin: Roslin) -> None:
    drafting = Roslin(roslin.decoder, roslin.tokenizer, draft=nearly(roslin.decoder, 0.001))
    questions = ["One bird?", "Two birds?", "Three birds?"]
    expected = [roslin.answer(question, seed=7, max_new_tokens=40).text for question in questions]
    server = Running(drafting)
    try:
        with ThreadPoolExecutor() as pool:
            bodies = [chat_body(question, max_tokens=40) for question in questions]
            replies = pool.map(lambda body: posted(server, CHAT, body), bodies)
            assert [reply["choices"][0]["message"]["content"] for reply in replies] == expected
        assert server.client.get("health").json()["cache"]["held"] == 0
    finally:
        server.end()
