"""A model that answers: instruction and context in, answers out: one, streamed, many at once, or scored."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self, Unpack, overload

from roslin.answer.answer import (
    Answer,
    Keywords,
    Question,
    Score,
    Settings,
    TokenLogprob,
    read_questions,
)
from roslin.answer.device import pick_device, pick_dtype
from roslin.answer.prompts import DollyPrompts, Prompts, choose_prompts
from roslin.answer.text import AnswerText
from roslin.engine import Completion, Engine, Event, Network, Request, ScoreRow, Token, fuse, score
from roslin.engine.noise import fresh_seed
from roslin.errors import InputError
from roslin.model import find_model, load_config, load_decoder
from roslin.tokens import Tokenizer


class Roslin:
    """A decoder with its tokenizer. A plain decoder is not copied, so it can be asked while it is being tuned."""

    def __init__(
        self, decoder: Network, tokenizer: Tokenizer, *, prompts: Prompts | None = None, max_batch: int = 16
    ) -> None:
        """Ask `decoder` by way of `prompts` (Dolly's when None), at most `max_batch` answers at once."""
        self.decoder = decoder
        self.tokenizer = tokenizer
        self.prompts = prompts or DollyPrompts(tokenizer)
        self._engine = Engine(decoder, tokenizer.size, max_batch)

    @classmethod
    def load(
        cls,
        model: str,
        *,
        dtype: str = "auto",
        device: str = "auto",
        prompt: str = "auto",
        revision: str | None = None,
        max_batch: int = 16,
    ) -> Self:
        """Load a model: a folder, `base`, or a hub name.

        `dtype` is float32, bfloat16, float16 or auto; `device` a torch device or auto (a GPU where there is one);
        `prompt` auto, dolly or chat (see `choose_prompts`). Warns when the model was not tuned for any prompt.
        Raises InputError for a folder that cannot be loaded, UsageError for an unknown setting, MachineError for a
        device that is not there.
        """
        folder = find_model(str(model), revision)
        where = pick_device(device)
        weights = pick_dtype(dtype, load_config(folder), where)
        tokenizer = Tokenizer.load(folder)
        prompts, notice = choose_prompts(prompt, tokenizer, folder)
        if notice:
            warnings.warn(notice, stacklevel=2)
        decoder = load_decoder(folder, dtype=weights, device=where)
        return cls(fuse(decoder), tokenizer, prompts=prompts, max_batch=max_batch)

    @overload
    def answer(
        self,
        instruction: str,
        context: str | None = ...,
        *,
        returns: Literal[1] = 1,
        **settings: Unpack[Keywords],
    ) -> Answer: ...

    @overload
    def answer(
        self, instruction: str, context: str | None = ..., *, returns: int, **settings: Unpack[Keywords]
    ) -> Answer | list[Answer]: ...

    def answer(
        self, instruction: str, context: str | None = None, *, returns: int = 1, **settings: Unpack[Keywords]
    ) -> Answer | list[Answer]:
        """The answer to an instruction; a list of answers when `returns` is more than 1.

        Each of several is drawn from a random stream of its own, which the seed and its number fix. `settings` are the
        fields of `Settings`. Raises InputError, before any work, for a request that cannot be run.
        """
        if returns < 1:
            raise InputError(f"returns is {returns}; it must be 1 or more.")
        answers = self._answer([(instruction, context)], Settings(**settings), returns)
        return answers[0] if returns == 1 else answers

    def answer_all(self, questions: Sequence[Question], **settings: Unpack[Keywords]) -> list[Answer]:
        """Answers to many questions, run together, in the questions' order; each the same as if asked alone.

        (In float32; in narrower dtypes low-order bits move with the batch.) Raises InputError listing every bad one.
        """
        return self._answer(questions, Settings(**settings), 1)

    def stream(self, instruction: str, context: str | None = None, **settings: Unpack[Keywords]) -> "AnswerStream":
        """The answer in pieces as they come, which joined are its text. Raises InputError at once if it cannot be."""
        how = Settings(**settings)
        request = self._requests([(instruction, context)], how, 1)[0]
        return AnswerStream(self._engine, request, self._draft(how))

    def score(self, instruction: str, response: str, context: str | None = None) -> Score:
        """How likely the model finds a response, its end key included: what tuning takes its loss on."""
        [(asked, about)] = read_questions([(instruction, context)])
        if not response.strip():
            raise InputError("The response is empty; there is nothing to score.")
        ids, start = self.prompts.scored_ids(asked, about, response)
        [logprobs] = score(self.decoder, [ScoreRow(ids, start)])
        return Score(sum(logprobs), len(logprobs))

    def _answer(self, questions: Sequence[Question], how: Settings, returns: int) -> list[Answer]:
        requests = self._requests(questions, how, returns)
        blank = [self._draft(how) for _ in requests]
        drafts = dict(zip(self._engine.submit_all(requests), blank, strict=True))
        try:
            while any(draft.answer is None for draft in drafts.values()):
                for event in self._engine.step():
                    if event.number in drafts:
                        self._take(drafts[event.number], event)
        finally:
            for number, draft in drafts.items():
                if draft.answer is None:
                    self._engine.cancel(number)
        return [draft.answer for draft in drafts.values() if draft.answer]

    def _take(self, draft: "_Draft", event: Event) -> None:
        draft.take(event)
        if draft.text.stopped and (completion := self._engine.cancel(event.number)):
            draft.end(completion)

    def _requests(self, questions: Sequence[Question], how: Settings, returns: int) -> list[Request]:
        read = read_questions(questions)
        prompts = [self.prompts.ids(instruction, context) for instruction, context in read]
        stop_ids = self.prompts.stop_ids
        requests = []
        for ids in prompts:
            seed = fresh_seed() if how.seed is None else how.seed
            for stream in range(returns):
                sampling = how.sampling(seed, stream)
                requests.append(Request(ids, how.max_new_tokens, sampling, stop_ids, how.top_logprobs))
        return requests

    def _draft(self, how: Settings) -> "_Draft":
        text = AnswerText(self.tokenizer, how.stops, textual_end=self.prompts.textual_end)
        return _Draft(text, self.tokenizer, with_logprobs=how.logprobs is not False)


class AnswerStream(Iterator[str]):
    """Pieces of an answer. When they are through (or `close` ended them), `answer` is the whole answer."""

    def __init__(self, engine: Engine, request: Request, draft: "_Draft") -> None:
        """Submit the request; the first piece asked for begins the work."""
        self._engine = engine
        self._number = engine.submit(request)
        self._events = engine.follow(self._number)
        self._draft = draft

    @property
    def answer(self) -> Answer | None:
        """The whole answer; None while it is still coming."""
        return self._draft.answer

    def __next__(self) -> str:
        """The next piece, never an empty one."""
        while self.answer is None:
            piece = self._draft.take(next(self._events))
            if self._draft.text.stopped:
                self.close()
            if piece:
                return piece
        raise StopIteration

    def whole(self) -> Answer:
        """The whole answer, waiting for what is still to come."""
        for _ in self:
            pass
        if self.answer is None:
            raise InputError("The answer was broken off by an error; ask again.")
        return self.answer

    def close(self) -> None:
        """End the answer here and free its place in the engine; `answer` is what came so far."""
        completion = self._engine.cancel(self._number)
        if completion:
            self._draft.end(completion)


@dataclass
class _Draft:
    """An answer while its tokens come."""

    text: AnswerText
    tokenizer: Tokenizer
    with_logprobs: bool
    tokens: list[Token] = field(default_factory=list)
    answer: Answer | None = None

    def take(self, event: Event) -> str:
        """Add a token, or the end; the piece of text that became certain."""
        piece = ""
        if event.token:
            self.tokens.append(event.token)
            piece = self.text.push(event.token.id)
        return piece + self.end(event.completion) if event.completion else piece

    def end(self, completion: Completion) -> str:
        """Complete the answer; the last piece of its text."""
        piece = self.text.finish()
        self.answer = Answer(
            text=self.text.text,
            tokens=completion.ids,
            finish_reason="stop" if self.text.stopped else completion.finish_reason,
            logprobs=tuple(self._named(token) for token in self.tokens) if self.with_logprobs else None,
            timings=completion.timings,
            seed=completion.seed,
        )
        return piece

    def _named(self, token: Token) -> TokenLogprob:
        top = tuple(TokenLogprob(id, self.tokenizer.decode([id]), logprob) for id, logprob in token.top)
        return TokenLogprob(token.id, self.tokenizer.decode([token.id]), token.logprob, top)
