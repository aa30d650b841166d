"""One request on its way."""

import time
from dataclasses import dataclass, field

from roslin.engine.noise import fresh_seed, stream_key
from roslin.engine.request import Completion, Event, FinishReason, Request, Timings, Token


@dataclass(eq=False)
class Generation:
    """What a request has said so far, and the slot where its keys and values lie."""

    number: int
    request: Request
    seed: int = 0
    stream: int = 0
    slot: int | None = None
    tokens: list[Token] = field(default_factory=list)
    completion: Completion | None = None
    submitted: float = field(default_factory=time.perf_counter)
    first_token: float | None = None
    drawn: int = 0

    def __post_init__(self) -> None:
        """Fix the random stream now, so that nothing later can change what is drawn."""
        sampling = self.request.sampling
        self.seed = fresh_seed() if sampling.seed is None else sampling.seed
        self.stream = stream_key(self.seed, sampling.stream, self.request.prompt_ids)

    @property
    def cached(self) -> int:
        """How many tokens have their keys and values in the cache: all but the newest, which goes in next."""
        return len(self.request.prompt_ids) + len(self.tokens) - 1

    @property
    def most_positions(self) -> int:
        """The greatest length it can reach."""
        return len(self.request.prompt_ids) + self.request.max_new_tokens

    def take(self, token: Token) -> Event:
        """Add a drawn token; the event it makes, with the completion when it was the last one."""
        self.drawn += 1
        if self.first_token is None:
            self.first_token = time.perf_counter()
        if token.id in self.request.stop_ids:
            return self._say(None, "stop")
        self.tokens.append(token)
        return self._say(token, "length" if self.drawn == self.request.max_new_tokens else None)

    def end(self, reason: FinishReason) -> Event:
        """End it without another token."""
        return self._say(None, reason)

    def _say(self, token: Token | None, reason: FinishReason | None) -> Event:
        self.completion = self._completed(reason) if reason else None
        return Event(self.number, token, self.completion)

    def _completed(self, reason: FinishReason) -> Completion:
        now = time.perf_counter()
        return Completion(
            ids=tuple(token.id for token in self.tokens),
            logprobs=tuple(token.logprob for token in self.tokens),
            top_logprobs=tuple(token.top for token in self.tokens),
            finish_reason=reason,
            timings=Timings((self.first_token or now) - self.submitted, now - self.submitted, self.drawn),
            seed=self.seed,
        )
