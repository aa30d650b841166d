"""An OpenAI-style endpoint: one chat in, one reply out, with patience for what passes and none for what does not."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from roslin.errors import InputError, UsageError

Message = Mapping[str, str]

PASSING = frozenset({408, 409, 425, 429})
"""Statuses below 500 that may be gone when asked again."""
OF_ONE_QUESTION = frozenset({400, 413, 422})
"""Statuses that say that this question cannot be answered: too long, say. Others may be."""
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
SHOWN = 300
"""Characters of an endpoint's own words in an error."""
UNREADABLE = (ValueError, LookupError, TypeError, RecursionError)
"""What comes of looking for a text in JSON that is none, has another form, or is nested without end."""


class JudgeUnusable(InputError):
    """The judge will never answer, whatever it is asked: a wrong key, a model that is not there."""


class _Passing(Exception):
    """A failure that may be gone when asked again; `wait` is what the endpoint asked for, in seconds."""

    def __init__(self, what: str, wait: float = 0.0) -> None:
        super().__init__(what)
        self.wait = wait


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the API key to another address."""

    def redirect_request(self, *_: Any) -> None:
        """Follow nothing: the redirect comes back as an error with its status."""


@dataclass(frozen=True)
class Endpoint:
    """Where and how to ask. `url` is what comes before /chat/completions, such as http://localhost:8000/v1."""

    url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    temperature: float = 0.0
    max_tokens: int = 1024
    body: Mapping[str, Any] = field(default_factory=dict)
    """Other fields of the request; null takes one away that is sent otherwise."""
    timeout: float = 120.0
    """Seconds without a word from the endpoint until a request counts as failed."""
    retries: int = 5
    """How often to ask again after a failure that may pass, each time after a pause twice as long."""
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def __post_init__(self) -> None:
        """Raise UsageError with all that is wrong with the address and the key."""
        faults = _address_faults(self.url)
        key = self.api_key
        if key is not None and not (key.isascii() and key.isprintable() and key.split() == [key]):
            faults.append("the API key must be printable ASCII without blanks")
        if faults:
            raise UsageError(f"This endpoint cannot be asked: {'; '.join(faults)}.")

    def chat(self, messages: Sequence[Message]) -> str:
        """The reply to a chat; empty when the endpoint sends none.

        Raises JudgeUnusable when asking is of no use at all, and InputError when this question got no reply.
        """
        pause = FIRST_PAUSE
        for left in range(self.retries, -1, -1):
            try:
                return self._ask(messages)
            except _Passing as failure:
                if not left:
                    raise InputError(f"asked {self.retries + 1} times without a reply; at last: {failure}") from None
                self.sleep(min(LONGEST_PAUSE, max(pause, failure.wait)))
                pause *= 2
        raise AssertionError("the last try returns or raises")

    def _ask(self, messages: Sequence[Message]) -> str:
        try:
            with _OPENER.open(self._request(messages), timeout=self.timeout) as reply:
                content = reply.read()
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise _Passing(f"{self.url} cannot be reached ({str(reason) or type(reason).__name__})") from None
        return self._without_key(self._text(content))

    def _request(self, messages: Sequence[Message]) -> urllib.request.Request:
        asked = {
            "model": self.model,
            "messages": list(messages),
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        sent = {name: value for name, value in {**asked, **self.body}.items() if value is not None}
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "roslin"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        address = f"{self.url.rstrip('/')}/chat/completions"
        return urllib.request.Request(address, json.dumps(sent).encode(), headers, method="POST")

    def _text(self, content: bytes) -> str:
        """The text of a reply: content is null in one that was refused or is all thought."""
        try:
            text = json.loads(content)["choices"][0]["message"]["content"]
        except UNREADABLE:
            begun = self._shown(content)
            raise _Passing(f"{self.url} replied with something other than a chat completion: {begun}") from None
        # Half a surrogate pair, which JSON can name, could not be written down.
        return text.encode("utf-8", "replace").decode() if isinstance(text, str) else ""

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        """What to raise for a status that is no success."""
        with error:
            try:
                said = self._shown(error.read())
            except (OSError, HTTPException):
                said = ""
        status = error.code
        known = status in HTTPStatus._value2member_map_
        told = f"{self.url} answered {status}{f' ({HTTPStatus(status).phrase})' if known else ''}"
        told += f": {said}" if said else ""
        if status in PASSING or status >= 500:
            return _Passing(told, _seconds(error.headers.get("Retry-After")))
        if status in OF_ONE_QUESTION:
            return InputError(told)
        return JudgeUnusable(f"{told}\nCheck --endpoint, --judge-model and the API key.")

    def _shown(self, content: bytes) -> str:
        """The endpoint's words, in short: the message of OpenAI's error object, or the beginning of what it sent."""
        text = content.decode("utf-8", "replace")
        with suppress(*UNREADABLE):
            text = str(json.loads(text)["error"]["message"])
        text = " ".join(self._without_key(text).split())
        return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"

    def _without_key(self, text: str) -> str:
        """An endpoint may send the key back in its words; they are shown and written to files."""
        return text.replace(self.api_key, "[API key]") if self.api_key else text


_OPENER = urllib.request.build_opener(_NoRedirect)


def _seconds(told: str | None) -> float:
    """How long the endpoint asks to wait; 0 where it says nothing, or a date."""
    return float(told) if told and told.strip().isdecimal() else 0.0


def _address_faults(url: str) -> list[str]:
    if not (url.isascii() and url.isprintable() and url.split() == [url]):
        return [f"{url!r} is no address: it must be printable ASCII without blanks"]
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        return [f"{url!r} is no address ({error})"]
    faults = []
    if parts.scheme not in ("http", "https") or not parts.hostname:
        faults.append(f"{url!r} is no address such as http://localhost:8000/v1")
    if parts.username is not None or parts.password is not None:
        faults.append("the address holds a name or password, and is written to files; give a key by --api-key-env")
    if parts.query or parts.fragment:
        faults.append("the address goes on after its path (? or #), and /chat/completions must come there")
    if parts.path.rstrip("/").endswith("/chat/completions"):
        faults.append("leave out /chat/completions: it is added")
    return faults
