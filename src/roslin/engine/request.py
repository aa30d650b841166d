"""What is asked of the engine and what comes back: sampling, request, token, completion, and how long it took."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; the defaults are Dolly's.

    `temperature` 0 takes the most probable token. `top_k` (0: no limit) is applied before `top_p`, and `top_p` keeps
    the smallest set of most probable tokens whose probability, among what `top_k` left, reaches it: as in transformers.
    `seed` None draws a fresh seed, which the completion reports. `stream` is the number of one of several answers to
    the same request: each has a random stream of its own.
    """

    temperature: float = 1.0
    top_p: float = 0.92
    top_k: int = 0
    seed: int | None = None
    stream: int = 0

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is taken each time."""
        return self.temperature == 0

    def faults(self) -> list[str]:
        """What is wrong with these settings, a line each."""
        found = []
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            found.append(f"temperature is {self.temperature}; it must be 0 (always the most probable token) or more")
        if not 0 < self.top_p <= 1:
            found.append(f"top_p is {self.top_p}; it must be above 0 and at most 1 (1 switches it off)")
        if self.top_k < 0:
            found.append(f"top_k is {self.top_k}; it must be 0 (off) or more")
        if self.seed is not None and not -(2**63) <= self.seed < 2**64:
            found.append(f"seed is {self.seed}; it must fit into 64 bits")
        return found


GREEDY = Sampling(temperature=0.0)


@dataclass(frozen=True)
class Request:
    """A prompt as ids and how to go on from it. Any of `stop_ids` ends the generation and is not part of the result."""

    prompt_ids: Sequence[int]
    max_new_tokens: int = 256
    sampling: Sampling = field(default_factory=Sampling)
    stop_ids: frozenset[int] = frozenset()
    top_logprobs: int = 0

    @property
    def most_cached(self) -> int:
        """The most tokens whose keys and values it can need at once: all but the last one drawn."""
        return len(self.prompt_ids) + self.max_new_tokens - 1

    def faults(self, vocabulary: int, positions: int) -> list[str]:
        """All that is wrong with this request for a model of `vocabulary` ids and `positions`, a line each."""
        found = self.sampling.faults()
        if not self.prompt_ids:
            found.append("the prompt is empty; the model needs at least one token to go on from")
        elif not 0 <= min(self.prompt_ids) <= max(self.prompt_ids) < vocabulary:
            found.append(f"the prompt has ids outside 0 … {vocabulary - 1}; it was made with another tokenizer")
        if self.max_new_tokens < 1:
            found.append(f"max_new_tokens is {self.max_new_tokens}; it must be 1 or more")
        if len(self.prompt_ids) + self.max_new_tokens > positions:
            found.append(
                f"{len(self.prompt_ids)} prompt tokens and {self.max_new_tokens} new ones make "
                f"{len(self.prompt_ids) + self.max_new_tokens}, and the model has {positions} positions; "
                "shorten the prompt, ask for fewer new tokens, or stretch the positions (rope scaling, such as yarn:4)"
            )
        if not 0 <= self.top_logprobs <= vocabulary:
            found.append(f"top_logprobs is {self.top_logprobs}; it must lie in 0 … {vocabulary}")
        return found


class Token(NamedTuple):
    """One generated token. Log-probabilities are the model's own, before temperature, top_p and top_k."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Timings:
    """Seconds from the request's submission to its first token and to its end, and the number of tokens drawn."""

    first_token: float
    total: float
    tokens: int

    @property
    def tokens_per_second(self) -> float:
        """New tokens per second of the whole time, waiting and prompt included."""
        return self.tokens / self.total if self.total > 0 else 0.0


@dataclass(frozen=True)
class Completion:
    """All that came of a request, without the stop token. `seed` repeats it."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...]
    finish_reason: FinishReason
    timings: Timings
    seed: int


class Event(NamedTuple):
    """News of one request: a token, its end, or both. A stop token brings an end without a token."""

    number: int
    token: Token | None = None
    completion: Completion | None = None
