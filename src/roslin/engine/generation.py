"""One request on its way."""

import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from roslin.engine.block_table import BlockTable
from roslin.engine.blocks import BLOCK
from roslin.engine.lookup import Lookup
from roslin.engine.noise import fresh_seed, stream_key
from roslin.engine.request import Completion, Event, FinishReason, Request, Timings, Token


@dataclass(eq=False)
class Generation:
    """What a request has said so far, and where its keys and values lie while it runs."""

    number: int
    request: Request
    seed: int = 0
    stream: int = 0
    slot: int | None = None
    table: BlockTable | None = None
    computed: int = 0
    """How many of its ids have their keys and values in the cache."""
    ids: list[int] = field(default_factory=list)
    """Prompt and answer."""
    logprobs: list[float] = field(default_factory=list)
    """Of the answer's tokens."""
    tops: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    """The most probable tokens in the place of each, where they are asked for."""
    completion: Completion | None = None
    submitted: float = field(default_factory=time.perf_counter)
    first_token: float | None = None
    drawn: int = 0
    pending: int = 0
    """How many tokens have been drawn, or will be by passes on their way, that nobody has read yet."""
    resident: bool = False
    """Whether its latest token stands on the device, in its slot, for the next pass to begin with."""
    proposed: list[int] = field(default_factory=list)
    """Guesses at what comes next, for the next pass to compute beside the latest token."""
    kept: deque[Token] = field(default_factory=deque)
    """Tokens drawn in one pass that are still to be told; all but the last have their keys and values in the cache."""
    lookup: Lookup = field(init=False)
    let_go: Callable[[], None] | None = None
    """Gives back what else is held for it while it runs, such as a draft model's blocks."""

    def __post_init__(self) -> None:
        """Fix the random stream now, so that nothing later can change what is drawn."""
        sampling = self.request.sampling
        self.seed = fresh_seed() if sampling.seed is None else sampling.seed
        self.stream = stream_key(self.seed, sampling.stream, self.request.prompt_ids)
        self.ids = list(self.request.prompt_ids)
        self.lookup = Lookup(len(self.ids))

    @property
    def missing(self) -> int:
        """How many ids are still to be computed before a token can be drawn; 1 while it answers, 0 after its last."""
        if self.drawn + self.pending >= self.request.max_new_tokens:
            return 0
        return len(self.ids) + self.pending - self.computed

    @property
    def grows(self) -> bool:
        """Whether it runs and may come to need more blocks than it has."""
        return self.table is not None and self.table.missing(self.request.most_cached) > 0

    def name_blocks(self) -> None:
        """Let others find what is in the cache, or will be after the pass at hand, as far as its ids are known."""
        if self.table is not None:
            self.table.fill(min(self.computed, len(self.ids)))

    def content(self, start: int, stop: int, original: int | None) -> bytes:
        """All that decides the keys and values of these tokens, beside those before them.

        That is their ids, and under dynamic scaling of positions how long the sequence was when they were computed,
        where that is beyond the `original` positions.
        """
        what = array("q", self.ids[start:stop])
        if original is not None and max(len(self.request.prompt_ids), stop) > original:
            what.extend(max(len(self.request.prompt_ids), place + 1) for place in range(start, stop))
        return what.tobytes()

    def keep(self, proposed: Sequence[int], drawn: Sequence[Token]) -> None:
        """Of tokens drawn behind the latest one and behind each proposed one, keep those before which all is right."""
        self.pending -= 1
        self.kept.append(drawn[0])
        for guess, before, token in zip(proposed, drawn, drawn[1:], strict=False):
            if guess != before.id:
                return
            self.kept.append(token)

    def tell(self, *, first: bool) -> Event:
        """Add the next token that was kept, as if the pass for it had been made now; the `first` one's has been."""
        if not first:
            self.computed += 1
        event = self.take(self.kept.popleft())
        self.name_blocks()
        return event

    def hear(self, token: Token) -> Event:
        """Add the token of a pass in which none was proposed."""
        self.pending -= 1
        event = self.take(token)
        if not len(self.ids) % BLOCK:
            self.name_blocks()
        return event

    def take(self, token: Token) -> Event:
        """Add a drawn token; the event it makes, with the completion when it was the last one."""
        self.drawn += 1
        if self.first_token is None:
            self.first_token = time.perf_counter()
        if token.id in self.request.stop_ids:
            return self._say(None, "stop")
        self.ids.append(token.id)
        self.logprobs.append(token.logprob)
        if token.top:
            self.tops.append(token.top)
        if self.drawn == self.request.max_new_tokens:
            return self._say(token, "length")
        return Event(self.number, token)

    def end(self, reason: FinishReason) -> Event:
        """End it without another token."""
        return self._say(None, reason)

    def _say(self, token: Token | None, reason: FinishReason) -> Event:
        self.completion = self._completed(reason)
        return Event(self.number, token, self.completion)

    def _completed(self, reason: FinishReason) -> Completion:
        now = time.perf_counter()
        return Completion(
            ids=tuple(self.ids[len(self.request.prompt_ids) :]),
            logprobs=tuple(self.logprobs),
            top_logprobs=tuple(self.tops) or ((),) * len(self.logprobs),
            finish_reason=reason,
            timings=Timings((self.first_token or now) - self.submitted, now - self.submitted, self.drawn),
            seed=self.seed,
        )
