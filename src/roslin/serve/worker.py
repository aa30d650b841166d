"""The one thread that owns the engine, and how http's event loop speaks with it.

Orders (take a call, drop a call, end) go to the thread through a queue; what the model says goes back to the event loop
piece by piece. Between two steps of the engine all orders are carried out, so that a new call joins the running ones,
and a dropped one frees its blocks, at the next step.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from queue import SimpleQueue

from roslin.answer import AnswerText, Roslin, Settings, TokenLogprob
from roslin.answer.answer import read_questions
from roslin.engine import Capacity, Engine, Event, FinishReason, Occupancy, Request, Token
from roslin.errors import MachineError, RoslinError

SECONDS_TO_END = 10
_log = logging.getLogger(__name__)


class Busy(RoslinError):
    """The queue is full; ask again later."""


class Gone(RoslinError):
    """Whoever asked has left."""


@dataclass(frozen=True)
class Call:
    """What one http request asks: questions (instruction, context), and `returns` answers to each.

    `limit` is the longest answer in tokens; None is Dolly's 256, or what the model's positions leave if that is less.
    """

    questions: list[tuple[str, str | None]]
    settings: Settings
    seed: int
    returns: int = 1
    limit: int | None = None

    def requests(self, roslin: Roslin) -> list[Request]:
        """What the engine is asked: each question's answers, one after the other. Raises InputError for a bad one."""
        prompts = [roslin.prompts.ids(*question) for question in read_questions(self.questions)]
        return [
            Request(
                ids,
                self._longest(roslin, ids) if self.limit is None else self.limit,
                self.settings.sampling(self.seed, stream),
                roslin.prompts.stop_ids,
                self.settings.top_logprobs,
            )
            for ids in prompts
            for stream in range(self.returns)
        ]

    def _longest(self, roslin: Roslin, prompt_ids: list[int]) -> int:
        return max(1, min(self.settings.max_new_tokens, roslin.decoder.config.positions - len(prompt_ids)))


@dataclass(frozen=True)
class Piece:
    """News of the answer number `index` of a call.

    Text that became certain, tokens drawn (where log-probabilities are asked for), how many were drawn so far, and at
    last why the answer ended.
    """

    index: int
    text: str
    tokens: tuple[TokenLogprob, ...]
    count: int
    finish_reason: FinishReason | None


class Answers:
    """The answers to one call while they come; belongs to the event loop that asked."""

    def __init__(self, worker: "Worker", call: Call, requests: list[Request]) -> None:
        """Nothing is asked yet; see `Worker.ask`."""
        self.call = call
        self.requests = requests
        self.numbers: list[int] = []
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Queue[Piece | RoslinError | None] = asyncio.Queue()

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the call's prompts, each counted once."""
        return sum(len(request.prompt_ids) for request in self.requests[:: self.call.returns])

    async def accepted(self) -> None:
        """Wait until the engine has taken the call. Raises what it was refused for."""
        await self._next()

    async def pieces(self) -> AsyncGenerator[Piece]:
        """All news until every answer has ended. Raises MachineError when the engine failed, Gone after `close`."""
        running = len(self.requests)
        while running:
            piece = await self._next()
            if piece:
                running -= piece.finish_reason is not None
                yield piece

    def close(self) -> None:
        """End what has not ended and free its blocks; whoever waits for a piece is told Gone."""
        self._worker.drop(self)
        self._news.put_nowait(Gone("The call was ended before its answers."))

    def tell(self, news: Piece | RoslinError | None) -> None:
        """From the engine's thread: a piece, a failure, or None for having been taken."""
        self._loop.call_soon_threadsafe(self._news.put_nowait, news)

    async def _next(self) -> Piece | None:
        news = await self._news.get()
        if isinstance(news, RoslinError):
            raise news
        return news


class Worker:
    """Answers the calls of many clients together, on one thread. `ask` and `stop` belong to one event loop."""

    def __init__(self, roslin: Roslin, *, max_batch: int = 16, max_waiting: int = 256) -> None:
        """At most `max_batch` answers run and `max_waiting` more wait. Raises InputError for a bad `max_batch`."""
        self.roslin = roslin
        self._engine = Engine(
            roslin.decoder,
            roslin.tokenizer.size,
            max_batch,
            weights_stay=True,
            draft=roslin.draft,
            cache_dtype=roslin.cache_dtype,
        )
        self._most = max_batch + max_waiting
        self._orders: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._drafts: dict[int, _Draft] = {}
        self._over = False
        self._thread = threading.Thread(target=self._work, name="roslin-engine", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """End every answer, tell those who wait, and end the thread."""
        self._over = True
        self._orders.put(lambda: None)  # wakes it
        self._thread.join(SECONDS_TO_END)

    @property
    def alive(self) -> bool:
        """Whether calls are taken."""
        return self._thread.is_alive() and not self._over

    @property
    def open_answers(self) -> int:
        """How many answers run or wait."""
        return len(self._drafts)

    @property
    def capacity(self) -> Capacity:
        """What the engine's cache has room for."""
        return self._engine.capacity

    @property
    def occupancy(self) -> Occupancy:
        """What of the engine's cache is in use."""
        return self._engine.occupancy

    async def ask(self, call: Call) -> Answers:
        """Have a call answered. Raises InputError for one that cannot be run and Busy when the queue is full."""
        requests = await asyncio.to_thread(call.requests, self.roslin)
        if not self.alive:
            raise MachineError("The server is shutting down.")
        answers = Answers(self, call, requests)
        self._orders.put(lambda: self._take(answers))
        try:
            await answers.accepted()
        except BaseException:
            answers.close()
            raise
        return answers

    def drop(self, answers: Answers) -> None:
        """Cancel what of a call has not ended."""
        self._orders.put(lambda: self._cancel(answers))

    def _work(self) -> None:
        try:
            self._engine.prepare()
        except Exception:
            _log.exception("The engine could not prepare; the first answer will wait for that.")
        while not self._over:
            if not self._engine.busy:
                self._orders.get()()
            self._carry_out()
            self._step()
        self._carry_out()
        self._fail(MachineError("The server is shutting down."))

    def _carry_out(self) -> None:
        while not self._orders.empty():
            self._orders.get()()

    def _take(self, answers: Answers) -> None:
        try:
            if len(self._drafts) + len(answers.requests) > self._most:
                raise Busy(f"The queue is full: {len(self._drafts)} answers run or wait. Ask again later.")
            drafts = [_Draft(self.roslin, answers, index) for index in range(len(answers.requests))]
            answers.numbers = self._engine.submit_all(answers.requests)
        except RoslinError as error:
            answers.tell(error)
            return
        except Exception:
            _log.exception("The engine failed to take a call.")
            answers.tell(MachineError("The engine failed; the server's log says how."))
            return
        self._drafts.update(zip(answers.numbers, drafts, strict=True))
        answers.tell(None)

    def _cancel(self, answers: Answers) -> None:
        for number in answers.numbers:
            self._engine.cancel(number)
            self._drafts.pop(number, None)

    def _step(self) -> None:
        try:
            for event in self._engine.step():
                self._pass_on(event)
        except RoslinError as error:
            self._fail(error)
        except Exception:
            _log.exception("The engine failed; every running answer is ended.")
            self._fail(MachineError("The engine failed; the server's log says how."))

    def _pass_on(self, event: Event) -> None:
        draft = self._drafts[event.number]
        piece = draft.take(event)
        if piece.finish_reason:
            self._engine.cancel(event.number)  # after a stop string the engine would go on
            del self._drafts[event.number]
        if piece.text or piece.tokens or piece.finish_reason:
            draft.answers.tell(piece)

    def _fail(self, error: RoslinError) -> None:
        for answers in {id(draft.answers): draft.answers for draft in self._drafts.values()}.values():
            self._cancel(answers)
            answers.tell(error)


class _Draft:
    """One answer on its way from tokens to pieces."""

    def __init__(self, roslin: Roslin, answers: Answers, index: int) -> None:
        settings = answers.call.settings
        self.answers = answers
        self._index = index
        self._count = 0
        self._tokenizer = roslin.tokenizer
        self._with_logprobs = settings.logprobs is not False
        self._text = AnswerText(roslin.tokenizer, settings.stops, textual_end=roslin.prompts.textual_end)

    def take(self, event: Event) -> Piece:
        text = ""
        if event.token:
            self._count += 1
            text = self._text.push(event.token.id)
        reason = event.completion.finish_reason if event.completion else None
        if reason:
            text += self._text.finish()
        if self._text.stopped:
            reason = "stop"
        tokens = (self._named(event.token),) if event.token and self._with_logprobs else ()
        return Piece(self._index, text, tokens, self._count, reason)

    def _named(self, token: Token) -> TokenLogprob:
        top = tuple(TokenLogprob(id, self._tokenizer.decode([id]), logprob) for id, logprob in token.top)
        return TokenLogprob(token.id, self._tokenizer.decode([token.id]), token.logprob, top)
