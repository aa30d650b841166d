"""The engine: many requests at once through one decoder, a step at a time.

It is not made for several threads: whoever owns it calls it from one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from roslin.engine.cache import CachedAttention, KVCache
from roslin.engine.generation import Generation
from roslin.engine.network import Network
from roslin.engine.request import Completion, Event, Request, Token
from roslin.engine.sampler import Sampler
from roslin.engine.scheduler import Scheduler
from roslin.errors import InputError, MachineError, out_of_memory
from roslin.model.finite import find_fault, not_finite, watched_hidden

PROMPT_TOKENS_PER_PASS = 4096
"""New prompts taken into one pass; more would hold up the generations that are already answering."""


@dataclass(frozen=True)
class _Pass:
    """One pass of the decoder: ids, positions and who sees whom; and which hidden states a token is drawn from."""

    stream: tuple[Tensor, Tensor, CachedAttention]
    lasts_B: Tensor | slice


class Engine:
    """Continuous batching over a slot cache.

    The weights are the network's own, never a copy: those of a plain decoder may change between two requests (a model
    being tuned). `fuse` makes a faster network of weights that stay.
    """

    def __init__(self, decoder: Network, vocabulary: int, max_batch: int = 16) -> None:
        """`vocabulary` is the tokenizer's size: ids at or above it are padding rows of the head and are never drawn.

        Raises InputError when the head has fewer rows than that, or `max_batch` is not positive.
        """
        if not 0 < vocabulary <= decoder.config.vocab_rows:
            raise InputError(
                f"The tokenizer has {vocabulary} ids and the model's head {decoder.config.vocab_rows} rows: "
                "tokenizer and model do not belong together."
            )
        if max_batch < 1:
            raise InputError(f"max_batch is {max_batch}; it must be 1 or more.")
        self.decoder = decoder
        self.vocabulary = vocabulary
        self._max_batch = max_batch
        self._cache = self._new_cache()
        self._scheduler = Scheduler(max_batch, PROMPT_TOKENS_PER_PASS)
        self._sampler: Sampler | None = None
        self._next_number = 0

    @property
    def busy(self) -> bool:
        """Whether any request runs or waits."""
        return self._scheduler.busy

    def submit(self, request: Request) -> int:
        """Queue a request; its number. Raises InputError with all that is wrong, before any work."""
        return self.submit_all([request])[0]

    def submit_all(self, requests: Sequence[Request]) -> list[int]:
        """Queue requests; their numbers. Raises InputError with all that is wrong with any of them, before any work."""
        return [generation.number for generation in self._submit_all(requests)]

    def cancel(self, number: int) -> Completion | None:
        """End a request now and free its slot; what it had said. None when it does not run or wait (any more)."""
        generation = self._scheduler.find(number)
        if generation is None:
            return None
        generation.end("cancelled")
        self._release(generation)
        return generation.completion

    def step(self) -> list[Event]:
        """Draw one token for each running request, new ones included; the news, in slot order.

        A step that fails (MachineError: no memory, or logits that are no numbers) cancels every request.
        """
        try:
            return self._step()
        except BaseException as error:
            self._drop_all()
            if out_of_memory(error):
                raise MachineError(f"Out of memory on {self.decoder.device}: lower max_batch, or shorten.") from error
            raise

    def run(self, requests: Sequence[Request]) -> list[Completion]:
        """All requests to their ends, batched; completions in the order given. Raises InputError before any work."""
        generations = self._submit_all(requests)
        try:
            while any(g.completion is None for g in generations):
                self.step()
        finally:
            self._abandon(generations)
        return [g.completion for g in generations if g.completion]

    @torch.inference_mode()
    def _step(self) -> list[Event]:
        newcomers = self._scheduler.admit()
        running = list(self._scheduler.running)
        if not running:
            return []
        self._reserve(running)
        work = self._next_pass(running, newcomers)
        hidden_ND = watched_hidden(self.decoder, *work.stream)
        tokens = self._draw(running, self.decoder.logits(hidden_ND[work.lasts_B]).float())
        if not all(math.isfinite(token.logprob) for token in tokens):
            raise not_finite(find_fault(self.decoder, *work.stream, hidden_ND), self.decoder.dtype)
        events = [generation.take(token) for generation, token in zip(running, tokens, strict=True)]
        for generation in running:
            if generation.completion:
                self._release(generation)
        return events

    def _submit_all(self, requests: Sequence[Request]) -> list[Generation]:
        faults = [r.faults(self.vocabulary, self.decoder.config.positions) for r in requests]
        if any(faults):
            raise InputError(_listed(faults))
        generations = [Generation(number, request) for number, request in enumerate(requests, self._next_number)]
        self._next_number += len(generations)
        self._scheduler.waiting.extend(generations)
        return generations

    def _abandon(self, generations: Sequence[Generation]) -> None:
        """Cancel what has not ended, so that no error leaves a slot taken."""
        for generation in generations:
            if generation.completion is None:
                self.cancel(generation.number)

    def _release(self, generation: Generation) -> None:
        freed = generation.slot
        moved = self._scheduler.remove(generation)
        self._sampler = None
        if moved is not None and freed is not None:
            self._cache.move(len(self._scheduler.running), freed, moved.cached)

    def _new_cache(self) -> KVCache:
        return KVCache(self.decoder.config, self.decoder.dtype, self.decoder.device, self._max_batch)

    def _reserve(self, running: Sequence[Generation]) -> None:
        if not self._cache.fits(self.decoder.dtype, self.decoder.device):
            self._cache = self._new_cache()
        longest = max(g.cached + 1 for g in running)
        self._cache.ensure(len(running), longest, max(g.most_positions for g in running))

    def _next_pass(self, running: Sequence[Generation], newcomers: Sequence[Generation]) -> "_Pass":
        """The stream in which old ones run one token, and newcomers their prompt."""
        decoding = running[: len(running) - len(newcomers)]
        ids = [g.tokens[-1].id for g in decoding]
        positions = [g.cached for g in decoding]
        lasts = list(range(len(decoding)))
        for newcomer in newcomers:
            ids.extend(newcomer.request.prompt_ids)
            positions.extend(range(len(newcomer.request.prompt_ids)))
            lasts.append(len(ids) - 1)
        prompts = [len(g.request.prompt_ids) for g in newcomers]
        attend = CachedAttention(self._cache, [p + 1 for p in positions[: len(decoding)]], prompts)
        device = self.decoder.device
        if newcomers:
            self._sampler = None
        stream = torch.tensor(ids, device=device), torch.tensor(positions, device=device), attend
        return _Pass(stream, torch.tensor(lasts, device=device) if newcomers else slice(None))

    def _draw(self, running: Sequence[Generation], logits_BV: Tensor) -> list[Token]:
        if self._sampler is None:
            self._sampler = Sampler([g.request.sampling for g in running], logits_BV.device)
        streams, steps = [g.stream for g in running], [g.drawn for g in running]
        ids_B = self._sampler.choose(logits_BV[:, : self.vocabulary], streams, steps)
        total_B1 = torch.logsumexp(logits_BV, -1, keepdim=True)
        logprobs = (logits_BV.gather(-1, ids_B[:, None]) - total_B1)[:, 0].tolist()
        tops = self._tops(running, logits_BV, total_B1)
        return [Token(*chosen) for chosen in zip(ids_B.tolist(), logprobs, tops, strict=True)]

    def _tops(
        self, running: Sequence[Generation], logits_BV: Tensor, total_B1: Tensor
    ) -> list[tuple[tuple[int, float], ...]]:
        """The most probable ids of each row and their log-probabilities, as many as its request asks for."""
        counts = [g.request.top_logprobs for g in running]
        if not any(counts):
            return [()] * len(counts)
        best_BK, ids_BK = logits_BV[:, : self.vocabulary].topk(max(counts))
        rows = zip(ids_BK.tolist(), (best_BK - total_B1).tolist(), counts, strict=True)
        return [tuple(zip(ids[:count], best[:count], strict=True)) for ids, best, count in rows]

    def _drop_all(self) -> None:
        """Cancel everything and forget the cache, whose NaN would outlive the one that wrote them."""
        for generation in self._scheduler.all():
            if generation.completion is None:
                generation.end("cancelled")
        self._scheduler.clear()
        self._cache.clear()
        self._sampler = None


def _listed(faults: Sequence[Sequence[str]]) -> str:
    if len(faults) == 1:
        return "The request cannot be run: " + "; ".join(faults[0]) + "."
    lines = [f"request {number}: {'; '.join(found)}" for number, found in enumerate(faults, 1) if found]
    return "\n".join([f"{len(lines)} of {len(faults)} requests cannot be run:", *lines])
