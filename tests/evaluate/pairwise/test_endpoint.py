"""One chat with an endpoint that is well, busy, away, wrong, or up to no good."""

import json
import socket
import threading
from collections.abc import Callable

import pytest

from pairwise_played import Played, completion, failure
from roslin.errors import InputError, UsageError
from roslin.evaluate.pairwise import Endpoint, JudgeUnusable

Make = Callable[..., Played]
ASKED = [{"role": "user", "content": "Which?"}]
KEY = "sk-very-secret"


def test_what_is_sent_and_what_comes_back(played: Make) -> None:
    server = played(lambda body, number: completion("Well.\nVERDICT: TIE"))
    endpoint = server.endpoint(api_key=KEY, max_tokens=77, body={"seed": 3, "temperature": None, "top_p": 0.5})
    assert endpoint.chat(ASKED) == "Well.\nVERDICT: TIE"
    assert server.bodies == [{"model": "judge", "messages": ASKED, "max_tokens": 77, "seed": 3, "top_p": 0.5}]
    assert server.paths == ["/v1/chat/completions"]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(endpoint)
    assert server.slept == []
    Endpoint(server.url + "/", "judge").chat(ASKED)
    assert server.paths[1] == "/v1/chat/completions"
    assert "Authorization" not in server.headers[1]
    assert server.bodies[1]["temperature"] == 0.0


def test_it_waits_for_a_busy_endpoint(played: Make) -> None:
    waits = [failure(429, Retry_After="7"), failure(503), failure(429, Retry_After="9999")]
    replies = [*waits, failure(429, Retry_After="\xb2"), completion("ok")]
    server = played(lambda body, number: replies[number])
    assert server.endpoint().chat(ASKED) == "ok"
    assert server.slept == [7.0, 2.0, 60.0, 8.0]


def test_half_a_surrogate_pair_can_be_written_down(played: Make) -> None:
    server = played(lambda body, number: completion("\ud83d \U0001f642 VERDICT: TIE"))
    assert server.endpoint().chat(ASKED) == "? \U0001f642 VERDICT: TIE"


def test_no_depth_of_a_refusal_is_too_much(played: Make) -> None:
    server = played(lambda body, number: (400, {}, b"[" * 100_000))
    with pytest.raises(InputError, match=r"400 \(Bad Request\): \[\[\["):
        server.endpoint().chat(ASKED)


def test_it_gives_a_broken_endpoint_up(played: Make) -> None:
    server = played(lambda body, number: failure(500, "out of order"))
    with pytest.raises(InputError, match=r"asked 4 times .* 500 \(Internal Server Error\): out of order"):
        server.endpoint(retries=3).chat(ASKED)
    assert server.slept == [1.0, 2.0, 4.0]


def test_an_endpoint_that_is_away_or_silent(played: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    slept: list[float] = []
    away = Endpoint(f"http://127.0.0.1:{port}/v1", "judge", retries=1, sleep=slept.append)
    with pytest.raises(InputError, match="cannot be reached"):
        away.chat(ASKED)
    assert slept == [1.0]
    done = threading.Event()

    def silent(body: object, number: int) -> tuple[int, dict[str, str], bytes]:
        done.wait(20)
        return completion("late")

    server = played(silent)
    with pytest.raises(InputError, match="timed out"):
        server.endpoint(retries=0, timeout=0.1).chat(ASKED)
    done.set()


@pytest.mark.parametrize(
    "content", [b"<html>Welcome</html>", b"{}", b'{"choices": []}', b"[1]", b"\xff", b"[" * 100_000]
)
def test_what_is_no_completion_is_asked_for_again(played: Make, content: bytes) -> None:
    server = played(lambda body, number: completion("ok") if number else (200, {}, content))
    assert server.endpoint().chat(ASKED) == "ok"
    with pytest.raises(InputError, match="something other than a chat completion"):
        played(lambda body, number: (200, {}, content)).endpoint(retries=1).chat(ASKED)


def test_a_reply_without_text_is_empty(played: Make) -> None:
    assert played(lambda body, number: completion(None)).endpoint().chat(ASKED) == ""


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_what_will_never_do_is_not_tried_again(played: Make, status: int) -> None:
    server = played(lambda body, number: failure(status, f"Wrong key {KEY}."))
    with pytest.raises(JudgeUnusable, match=rf"answered {status} .*Wrong key \[API key\]\.") as told:
        server.endpoint(api_key=KEY).chat(ASKED)
    assert KEY not in str(told.value)
    assert (len(server.bodies), server.slept) == (1, [])


def test_a_question_that_does_not_fit_is_no_reason_to_give_up_the_judge(played: Make) -> None:
    server = played(lambda body, number: failure(400, "too long"))
    with pytest.raises(InputError, match=r"400 .*too long") as told:
        server.endpoint().chat(ASKED)
    assert not isinstance(told.value, JudgeUnusable)
    assert len(server.bodies) == 1


def test_the_key_follows_no_redirect(played: Make) -> None:
    thief = played(lambda body, number: completion("thanks"))
    for status in (301, 302, 307, 308):
        to = {"Location": f"{thief.url}/chat/completions"}
        server = played(lambda body, number, status=status, to=to: (status, to, b""))
        with pytest.raises(JudgeUnusable, match=f"answered {status}"):
            server.endpoint(api_key=KEY).chat(ASKED)
    assert thief.paths == []


def test_a_key_that_is_sent_back_goes_no_further(played: Make) -> None:
    server = played(lambda body, number: completion(f"You are {KEY}.\nVERDICT: TIE"))
    assert server.endpoint(api_key=KEY).chat(ASKED) == "You are [API key].\nVERDICT: TIE"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:8000/v1", "no address such as"),
        ("ftp://host/v1", "no address such as"),
        ("http://", "no address such as"),
        ("http://host:port/v1", "is no address"),
        ("http://host/ä", "printable ASCII"),
        ("http://host/a b", "printable ASCII"),
        ("http://me:secret@host/v1", "name or password"),
        ("http://host/v1?key=secret", "goes on after its path"),
        ("http://host/v1/chat/completions/", "leave out /chat/completions"),
    ],
)
def test_addresses_that_cannot_be(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as told:
        Endpoint(url, "judge", api_key="a b")
    assert "printable ASCII" in str(told.value), "all faults at once"


def test_what_is_sent_is_json_of_any_text(played: Make) -> None:
    server = played(lambda body, number: completion("ok"))
    server.endpoint().chat([{"role": "user", "content": 'Ä "☃"\n\u2028'}])
    assert server.bodies[0]["messages"][0]["content"] == 'Ä "☃"\n\u2028'
    assert json.dumps(server.bodies[0])
