"""What OpenAI's clients get: whole replies, the chunks of a stream, and errors."""

import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Protocol

from roslin.answer import TokenLogprob
from roslin.engine import FinishReason
from roslin.serve.worker import Answers, Piece

Json = dict[str, Any]


@dataclass
class Said:
    """All that was said so far of one answer."""

    text: str = ""
    tokens: list[TokenLogprob] = field(default_factory=list)
    count: int = 0
    finish_reason: FinishReason | None = None

    def add(self, piece: Piece) -> None:
        """Add what is new."""
        self.text += piece.text
        self.tokens.extend(piece.tokens)
        self.count = piece.count
        self.finish_reason = piece.finish_reason


class Shape(Protocol):
    """How the answers of one endpoint are written down."""

    prefix: str
    whole: str
    part: str

    def choice(self, index: int, said: Said) -> Json:
        """One whole answer."""
        ...

    def opening(self, index: int) -> Json | None:
        """What a stream begins an answer with."""
        ...

    def change(self, piece: Piece, before: Said) -> Json:
        """What a piece adds to what was said before it."""
        ...


class ChatShape:
    """/v1/chat/completions."""

    prefix, whole, part = "chatcmpl-", "chat.completion", "chat.completion.chunk"

    def choice(self, index: int, said: Said) -> Json:
        """One whole answer."""
        message = {"role": "assistant", "content": said.text, "refusal": None}
        return {"index": index, "message": message, **self._rest(said.tokens, said.finish_reason)}

    def opening(self, index: int) -> Json | None:
        """The role, before any text."""
        return {"index": index, "delta": {"role": "assistant", "content": ""}, **self._rest([], None)}

    def change(self, piece: Piece, before: Said) -> Json:
        """What a piece adds."""
        delta = {"content": piece.text} if piece.text else {}
        return {"index": piece.index, "delta": delta, **self._rest(piece.tokens, piece.finish_reason)}

    def _rest(self, tokens: list[TokenLogprob] | tuple[TokenLogprob, ...], reason: FinishReason | None) -> Json:
        logprobs = {"content": [_token(t, with_top=True) for t in tokens], "refusal": None} if tokens else None
        return {"logprobs": logprobs, "finish_reason": reason}


class TextShape:
    """/v1/completions."""

    prefix, whole, part = "cmpl-", "text_completion", "text_completion"

    def choice(self, index: int, said: Said) -> Json:
        """One whole answer."""
        return self._choice(index, said.text, said.tokens, said.finish_reason, 0)

    def opening(self, index: int) -> Json | None:
        """Nothing: the first chunk is the first text."""
        return None

    def change(self, piece: Piece, before: Said) -> Json:
        """What a piece adds."""
        start = sum(len(token.text) for token in before.tokens)
        return self._choice(piece.index, piece.text, list(piece.tokens), piece.finish_reason, start)

    def _choice(
        self, index: int, text: str, tokens: list[TokenLogprob], reason: FinishReason | None, start: int
    ) -> Json:
        logprobs = _columns(tokens, start) if tokens else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}


class Reply:
    """The reply to one call, whole or in chunks. `seed` is Roslin's own field: it repeats the answers."""

    def __init__(self, shape: Shape, model: str, answers: Answers) -> None:
        """Nothing is said yet."""
        self._shape = shape
        self._answers = answers
        self._said = [Said() for _ in answers.requests]
        self._head = {
            "id": f"{shape.prefix}{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
            "seed": answers.call.seed,
        }

    def openings(self) -> list[Json]:
        """The chunks that come before any text."""
        found = [self._shape.opening(index) for index in range(len(self._said))]
        return [self._chunk([choice]) for choice in found if choice]

    def add(self, piece: Piece) -> Json:
        """Take in what is new; the chunk that tells of it."""
        said = self._said[piece.index]
        choice = self._shape.change(piece, said)
        said.add(piece)
        return self._chunk([choice])

    def usage_chunk(self) -> Json:
        """The last chunk of a stream that counts its tokens."""
        return self._chunk([]) | {"usage": self._usage()}

    def whole(self) -> Json:
        """All answers, when they have ended."""
        choices = [self._shape.choice(index, said) for index, said in enumerate(self._said)]
        return {**self._head, "object": self._shape.whole, "choices": choices, "usage": self._usage()}

    def _chunk(self, choices: list[Json]) -> Json:
        return {**self._head, "object": self._shape.part, "choices": choices}

    def _usage(self) -> Json:
        prompt, drawn = self._answers.prompt_tokens, sum(said.count for said in self._said)
        return {"prompt_tokens": prompt, "completion_tokens": drawn, "total_tokens": prompt + drawn}


def error_object(message: str, kind: str, code: str | None = None, param: str | None = None) -> Json:
    """An error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _token(token: TokenLogprob, *, with_top: bool) -> Json:
    """A token in the chat shape; `bytes` is null for a token that is a part of a character only."""
    told: Json = {
        "token": token.text,
        "logprob": token.logprob,
        "bytes": None if "\ufffd" in token.text else list(token.text.encode()),
    }
    return told | {"top_logprobs": [_token(t, with_top=False) for t in token.top]} if with_top else told


def _columns(tokens: list[TokenLogprob], start: int) -> Json:
    """Tokens in the completion shape; offsets count the characters of the tokens, as they were before any stripping."""
    offsets = []
    for token in tokens:
        offsets.append(start)
        start += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{t.text: t.logprob for t in token.top} for token in tokens],
        "text_offset": offsets,
    }
