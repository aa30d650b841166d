"""A model that answers: instruction and context in, answers out: one, streamed, many at once, or scored."""

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, Self, Unpack, overload

import torch

from roslin.answer.answer import Answer, Keywords, Question, Score, Settings, check_text, raise_faults, read_questions
from roslin.answer.desk import Desk, Draft
from roslin.answer.device import pick_cache, pick_device, pick_dtype
from roslin.answer.drafting import load_draft
from roslin.answer.parallel import load_together
from roslin.answer.prompts import DollyPrompts, Prompts, choose_prompts
from roslin.answer.text import AnswerText
from roslin.engine import Engine, Network, Request, ScoreRow, fuse, score
from roslin.engine.noise import fresh_seed
from roslin.engine.parallel import is_first_process, several_processes
from roslin.errors import InputError
from roslin.model import ModelConfig, find_model, load_config, load_for_answering, scaled, text_source
from roslin.model.grad_mode import no_grad
from roslin.tokens import Tokenizer

NO_DRAFT = "The draft model is not used: in float16 a wrong guess could overflow. Take bfloat16 or float32 for it."


class Roslin:
    """A decoder with its tokenizer. A plain decoder is not copied, so it can be asked while it is being tuned.

    Several threads may ask at once; what they ask runs together.
    """

    def __init__(
        self,
        decoder: Network,
        tokenizer: Tokenizer,
        *,
        prompts: Prompts | None = None,
        max_batch: int = 16,
        weights_stay: bool = False,
        dtype: torch.dtype | None = None,
        draft: Network | None = None,
        cache_dtype: torch.dtype | None = None,
    ) -> None:
        """Ask `decoder` by way of `prompts` (Dolly's when None), at most `max_batch` answers at once.

        `dtype` is that of the weights where the decoder computes in a wider one, as a CPU's kernels do. `draft` is a
        small model of the same tokenizer that guesses ahead, `cache_dtype` that of keys and values (see `Engine`).
        If its `weights_stay` as they are, what prompts begin with is kept from one question to the next.
        """
        self.decoder = decoder
        self.dtype = dtype or decoder.dtype
        self.tokenizer = tokenizer
        self.prompts = prompts or DollyPrompts(tokenizer)
        self.draft, self.cache_dtype = draft, cache_dtype
        engine = Engine(
            decoder, tokenizer.size, max_batch, weights_stay=weights_stay, draft=draft, cache_dtype=cache_dtype
        )
        self._desk = Desk(engine)

    @classmethod
    @no_grad
    def load(
        cls,
        model: str,
        *,
        dtype: str = "auto",
        device: str = "auto",
        prompt: str = "auto",
        revision: str | None = None,
        rope_scaling: str | None = None,
        max_batch: int = 16,
        draft: str | None = None,
        parallel: bool = False,
        cache: str = "auto",
    ) -> Self:
        """Load a model: a folder, an adapter, a file, `base`, `smollm2`, or a hub name (see `find_model`).

        `dtype` is float32, bfloat16, float16 or auto; `device` a torch device or auto (a GPU where there is one);
        `prompt` auto, dolly or chat (see `choose_prompts`). `rope_scaling` (such as `yarn:4`; linear and dynamic are
        the others) stretches the model's positions beyond those that it was trained on. `draft` names a smaller model
        of the same tokenizer: what it guesses ahead is kept where it is what the model draws, which is faster where
        that is often so, and is left off where it is not. Warns when the model was not tuned for any prompt, or cannot
        use its draft. `parallel`: of several processes that torchrun has started each holds a part of the model; only
        the first comes back from here and asks, the others work for it and end, by SystemExit, when it does. `cache`
        fp8 keeps keys and values in half of 16 bits' memory, rounded (auto: in the weights' dtype). Raises
        InputError for a folder that cannot be loaded, or a draft of other tokens, UsageError for an unknown setting,
        MachineError for a device that is not there.
        """
        where, kept = pick_device(device), pick_cache(cache)
        find = partial(_found, str(model), revision, rope_scaling, dtype, where)
        several = parallel and several_processes()
        if several and not is_first_process():
            load_together(find, where)
        folder, config, weights = find()
        source = text_source(folder)
        tokenizer = Tokenizer.load(source)
        prompts, notice = choose_prompts(prompt, tokenizer, source)
        if notice:
            warnings.warn(notice, stacklevel=2)
        drafting = load_draft(draft, model, tokenizer, dtype, where) if draft is not None else None
        if several:
            decoder: Network = load_together(lambda: (folder, config, weights), where)
        else:
            decoder = fuse(load_for_answering(folder, dtype=weights, device=where, config=config))
        if drafting is not None and decoder.dtype == torch.float16:
            warnings.warn(NO_DRAFT, stacklevel=2)
        return cls(
            decoder,
            tokenizer,
            prompts=prompts,
            max_batch=max_batch,
            weights_stay=True,
            dtype=weights,
            draft=drafting,
            cache_dtype=kept,
        )

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

    def answer_all(
        self, questions: Sequence[Question], *, returns: int = 1, **settings: Unpack[Keywords]
    ) -> list[Answer]:
        """Answers to many questions, run together, in the questions' order; each the same as if asked alone.

        (In float32; in narrower dtypes low-order bits move with the batch.) With `returns` above 1, the answers of a
        question stand together. Raises InputError listing every bad question.
        """
        if returns < 1:
            raise InputError(f"returns is {returns}; it must be 1 or more.")
        return self._answer(questions, Settings(**settings), returns)

    def stream(self, instruction: str, context: str | None = None, **settings: Unpack[Keywords]) -> "AnswerStream":
        """The answer in pieces as they come, which joined are its text. Raises InputError at once if it cannot be."""
        how = Settings(**settings)
        requests = self._requests([(instruction, context)], how, 1)
        draft = self._draft(how)
        self._desk.submit(requests, [draft])
        return AnswerStream(self._desk, draft)

    def score(self, instruction: str, response: str, context: str | None = None) -> Score:
        """How likely the model finds a response, its end key included: what tuning takes its loss on."""
        [(asked, about)] = read_questions([(instruction, context)])
        if not response.strip():
            raise InputError("The response is empty; there is nothing to score.")
        check_text("response", response)
        ids, start = self.prompts.scored_ids(asked, about, response)
        [logprobs] = score(self.decoder, [ScoreRow(ids, start)])
        return Score(sum(logprobs), len(logprobs))

    def _answer(self, questions: Sequence[Question], how: Settings, returns: int) -> list[Answer]:
        requests = self._requests(questions, how, returns)
        drafts = [self._draft(how) for _ in requests]
        self._desk.submit(requests, drafts)
        try:
            for draft in drafts:
                while not draft.ended:
                    self._desk.step()
        finally:
            self._desk.cancel(drafts)
        return [draft.answer for draft in drafts if draft.answer]

    def _requests(self, questions: Sequence[Question], how: Settings, returns: int) -> list[Request]:
        asked = [self.prompts.ids(*question) for question in read_questions(questions)]
        requests = [request for ids in asked for request in self._returns(ids, how, returns)]
        faults = [r.faults(self.tokenizer.size, self.decoder.config.positions) for r in requests[::returns]]
        raise_faults(faults)
        return requests

    def _returns(self, ids: list[int], how: Settings, returns: int) -> list[Request]:
        seed = fresh_seed() if how.seed is None else how.seed
        draws = [how.sampling(seed, stream) for stream in range(returns)]
        return [Request(ids, how.max_new_tokens, draw, self.prompts.stop_ids, how.top_logprobs) for draw in draws]

    def _draft(self, how: Settings) -> Draft:
        text = AnswerText(self.tokenizer, how.stops, textual_end=self.prompts.textual_end)
        return Draft(text, self.tokenizer, with_logprobs=how.logprobs is not False)


def _found(
    model: str, revision: str | None, rope_scaling: str | None, dtype: str, where: torch.device
) -> tuple[Path, ModelConfig, torch.dtype]:
    """Where a model is, its configuration, and the dtype that its weights are to have."""
    folder = find_model(model, revision)
    config = load_config(folder)
    if rope_scaling is not None:
        config = scaled(config, rope_scaling)
    return folder, config, pick_dtype(dtype, config, where)


class AnswerStream(Iterator[str]):
    """Pieces of an answer. When they are through (or `close` ended them), `answer` is the whole answer."""

    def __init__(self, desk: Desk, draft: Draft) -> None:
        """Read what `desk` writes into `draft`; the first piece asked for begins the work."""
        self._desk = desk
        self._draft = draft

    @property
    def answer(self) -> Answer | None:
        """The whole answer; None while it is still coming."""
        return None if self._draft.pieces else self._draft.answer

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids drawn so far, which may be ahead of the pieces that were read."""
        return self._draft.ids

    def __next__(self) -> str:
        """The next piece, never an empty one."""
        while True:
            ended = self._draft.ended  # asked first: another thread may add the last piece meanwhile
            if self._draft.pieces:
                return self._draft.pieces.popleft()
            if ended:
                raise StopIteration
            self._desk.step()

    def whole(self) -> Answer:
        """The whole answer, waiting for what is still to come. Raises MachineError if an error broke it off."""
        while not self._draft.ended:
            self._desk.step()
        self._draft.pieces.clear()
        assert self._draft.answer is not None
        return self._draft.answer

    def close(self) -> None:
        """End the answer here and free its place in the engine; `answer` is what came so far."""
        self._desk.cancel([self._draft])
        self._draft.pieces.clear()
