"""One engine and all who ask it: every token goes to the answer it belongs to, whoever made the engine work."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from roslin.answer.answer import Answer, TokenLogprob
from roslin.answer.text import AnswerText
from roslin.engine import Completion, Engine, Event, Request, Token
from roslin.errors import MachineError
from roslin.tokens import Tokenizer

HANDING_OVER = 1e-4
"""Seconds for which a thread that has had its turn stays away from the lock while others wait."""


@dataclass(eq=False)
class Draft:
    """An answer while its tokens come: `pieces` are those of its text that nobody has read yet."""

    text: AnswerText
    tokenizer: Tokenizer
    with_logprobs: bool
    pieces: deque[str] = field(default_factory=deque)
    answer: Answer | None = None
    failure: BaseException | None = None
    _tokens: list[Token] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether the answer is whole. Raises MachineError when the work on it was broken off."""
        if self.failure is not None:
            why = str(self.failure) or type(self.failure).__name__
            raise MachineError(f"The answer was broken off ({why.removesuffix('.')}); ask again.")
        return self.answer is not None

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids drawn so far."""
        return tuple(token.id for token in self._tokens)

    def take(self, event: Event) -> None:
        """Add a token, or the end."""
        if event.token:
            self._tokens.append(event.token)
            self._say(self.text.push(event.token.id))
        if event.completion:
            self.end(event.completion)

    def end(self, completion: Completion) -> None:
        """Complete the answer."""
        self._say(self.text.finish())
        self.answer = Answer(
            text=self.text.text,
            tokens=completion.ids,
            finish_reason="stop" if self.text.stopped else completion.finish_reason,
            logprobs=tuple(self._named(token) for token in self._tokens) if self.with_logprobs else None,
            timings=completion.timings,
            seed=completion.seed,
        )

    def _say(self, piece: str) -> None:
        if piece:
            self.pieces.append(piece)

    def _named(self, token: Token) -> TokenLogprob:
        top = tuple(TokenLogprob(id, self.tokenizer.decode([id]), logprob) for id, logprob in token.top)
        return TokenLogprob(token.id, self.tokenizer.decode([token.id]), token.logprob, top)


class Desk:
    """Hands requests to an engine, one thread at a time, and shares out what comes of them.

    It holds drafts weakly: what nobody waits for any more (a stream left unread, say) is cancelled at the next step.
    """

    def __init__(self, engine: Engine) -> None:
        """Nothing else may use `engine`."""
        self._engine = engine
        self._drafts: WeakValueDictionary[int, Draft] = WeakValueDictionary()
        self._numbers: set[int] = set()
        # Taken by `with` alone: between any other two steps of Python a Ctrl-C can come and leave a lock held for ever.
        self._lock = threading.RLock()
        self._waiting: set[int] = set()

    def submit(self, requests: Sequence[Request], drafts: Sequence[Draft]) -> None:
        """Queue requests, each with its draft. Raises InputError with all that is wrong, before any work."""
        self._line_up()
        with self._lock:
            self._waiting.discard(threading.get_ident())
            numbers = self._engine.submit_all(requests)
            self._numbers.update(numbers)
            self._drafts.update(zip(numbers, drafts, strict=True))

    def step(self) -> None:
        """Draw one token for every running request. An error ends them all."""
        self._line_up()
        with self._lock:
            self._waiting.discard(threading.get_ident())
            try:
                self._forget_the_left()
                for event in self._engine.step():
                    self._pass_on(event)
            except BaseException as error:
                self._fail(error)
                raise
        if self._waiting:
            time.sleep(HANDING_OVER)

    def cancel(self, drafts: Sequence[Draft]) -> None:
        """End these answers with what they have said so far; those that are whole stay as they are."""
        self._line_up()
        with self._lock:
            self._waiting.discard(threading.get_ident())
            wanted = set(drafts)
            for number, draft in list(self._drafts.items()):
                if draft in wanted:
                    self._end(number, draft)

    def _line_up(self) -> None:
        """Be seen to wait, so that the thread at work leaves the next turn to others."""
        self._waiting.add(threading.get_ident())

    def _pass_on(self, event: Event) -> None:
        draft = self._drafts.get(event.number)
        if draft is None:
            return
        draft.take(event)
        if draft.text.stopped or event.completion:
            self._end(event.number, draft)  # after a stop string the engine would go on

    def _end(self, number: int, draft: Draft) -> None:
        completion = self._engine.cancel(number)
        if completion:
            draft.end(completion)
        self._numbers.discard(number)
        del self._drafts[number]

    def _forget_the_left(self) -> None:
        if len(self._drafts) != len(self._numbers):
            for number in self._numbers - set(self._drafts.keys()):
                self._engine.cancel(number)
                self._numbers.discard(number)

    def _fail(self, error: BaseException) -> None:
        for number in self._numbers:
            self._engine.cancel(number)
        for draft in list(self._drafts.values()):
            draft.failure = error
        self._drafts.clear()
        self._numbers.clear()
