"""The engine: many requests at once through one decoder, a step at a time.

It is not made for several threads: whoever owns it calls it from one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from roslin.engine.blocks import BLOCK, BlockPool, blocks_for
from roslin.engine.cache import KVCache
from roslin.engine.capacity import Capacity, capacity
from roslin.engine.generation import Generation
from roslin.engine.network import Network
from roslin.engine.paged import PagedAttention, Span, kernel_for
from roslin.engine.request import Completion, Event, Request, Token
from roslin.engine.sampler import Sampler
from roslin.engine.scheduler import PROMPT_TOKENS_BESIDE, Run, Scheduler
from roslin.engine.slots import Slots
from roslin.errors import InputError, MachineError, out_of_memory
from roslin.model.finite import find_fault, not_finite, watched_hidden


@dataclass(frozen=True)
class Occupancy:
    """What of the cache is in use, in tokens of whole blocks."""

    held: int
    """By requests that run."""
    kept: int
    """By nobody, in case that others begin alike."""
    capacity: int
    """The most that can be in use."""


@dataclass(frozen=True)
class _Pass:
    """One pass of the decoder: ids, positions and who sees whom; who draws a token after it, and from which states."""

    stream: tuple[Tensor, Tensor, PagedAttention]
    drawing: list[Generation]
    lasts_B: Tensor | slice


class Engine:
    """Continuous batching over a paged cache, in which requests that begin alike share what they have in common.

    The weights are the network's own, never a copy: those of a plain decoder may change while nothing runs (a model
    being tuned). `fuse` makes a faster network of weights that stay.
    """

    def __init__(
        self,
        decoder: Network,
        vocabulary: int,
        max_batch: int = 16,
        *,
        weights_stay: bool = False,
        cache_tokens: int | None = None,
    ) -> None:
        """`vocabulary` is the tokenizer's size: ids at or above it are padding rows of the head and are never drawn.

        At most `max_batch` requests run at once. The cache grows as it is needed, up to `cache_tokens`, or to what
        memory was free when this was made. If `weights_stay` as they are, a request may begin with what an earlier one
        has left in the cache; else only with what those beside it have.
        Raises InputError when the head has fewer rows than `vocabulary`, or `max_batch` is not positive.
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
        self._weights_stay = weights_stay
        self._cache_tokens = cache_tokens
        self._sampler: tuple[list[int], Sampler] | None = None
        self._next_number = 0
        self._begin()

    @property
    def capacity(self) -> Capacity:
        """How many tokens, and how many full-length requests, the cache has room for."""
        return Capacity(self._pool.limit, self.decoder.config.positions)

    @property
    def occupancy(self) -> Occupancy:
        """What of the cache is in use now."""
        return Occupancy(self._pool.held * BLOCK, self._pool.left * BLOCK, self._pool.limit * BLOCK)

    @property
    def preempted(self) -> int:
        """How often a request had to give way, to be computed again later, as the cache was full."""
        return self._scheduler.preempted

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
        """End a request now and free its blocks; what it had said. None when it does not run or wait (any more)."""
        generation = self._scheduler.find(number)
        if generation is None:
            return None
        generation.end("cancelled")
        self._scheduler.remove(generation)
        return generation.completion

    def step(self) -> list[Event]:
        """Compute one pass: a token for everyone who answers, and some prompt beside; the news, the oldest first.

        There may be none while long prompts are read. A step that fails (MachineError: no memory, or logits that are
        no numbers) cancels every request.
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

    @torch.no_grad()  # not inference_mode: Ctrl-C within its entry lets it end in the middle of a later step
    def _step(self) -> list[Event]:
        runs = self._scheduler.plan()
        if not runs:
            return []
        work = self._next_pass(runs)
        hidden_ND = watched_hidden(self.decoder, *work.stream)
        if not work.drawing:
            return []
        tokens = self._draw(work.drawing, self.decoder.logits(hidden_ND[work.lasts_B]).float())
        if not all(math.isfinite(token.logprob) for token in tokens):
            raise not_finite(find_fault(self.decoder, *work.stream, hidden_ND), self.decoder.dtype)
        events = [generation.take(token) for generation, token in zip(work.drawing, tokens, strict=True)]
        for generation in work.drawing:
            if generation.completion:
                self._scheduler.remove(generation)
        return events

    def _submit_all(self, requests: Sequence[Request]) -> list[Generation]:
        if not self.busy:
            self._catch_up()
        faults = [self._faults(request) for request in requests]
        if any(faults):
            raise InputError(_listed(faults))
        generations = [Generation(number, request) for number, request in enumerate(requests, self._next_number)]
        self._next_number += len(generations)
        self._scheduler.waiting.extend(generations)
        return generations

    def _faults(self, request: Request) -> list[str]:
        found = request.faults(self.vocabulary, self.decoder.config.positions)
        if not found and blocks_for(request.most_cached) > self._pool.limit:
            found.append(
                f"{len(request.prompt_ids)} prompt tokens and {request.max_new_tokens} new ones can never fit into the "
                f"cache, which has memory for {self.capacity.tokens:,} tokens; shorten the prompt, ask for fewer new "
                "tokens, or make room in memory"
            )
        return found

    def _begin(self) -> None:
        """Have an empty cache for the decoder as it is now."""
        config, dtype, device = self.decoder.config, self.decoder.dtype, self.decoder.device
        if self._cache_tokens is None:
            blocks = capacity(config, dtype, device, self._max_batch).blocks
        else:
            blocks = self._cache_tokens // BLOCK
        self._cache = KVCache(config, dtype, device)
        self._kernel = kernel_for(dtype, device)
        self._pool = BlockPool(blocks, self._cache.provide)
        self._slots = Slots(self._max_batch, config.positions)
        scaling = config.rotary_scaling
        original = scaling.original if scaling is not None and scaling.kind == "dynamic" else None
        beside = PROMPT_TOKENS_BESIDE.get(device.type, PROMPT_TOKENS_BESIDE["cuda"])
        self._scheduler = Scheduler(self._pool, self._slots, beside, original)

    def _catch_up(self) -> None:
        """While nothing runs: let go of what other weights have left."""
        if not self._cache.fits(self.decoder.dtype, self.decoder.device):
            self._begin()
        elif not self._weights_stay:
            self._pool.forget()

    def _abandon(self, generations: Sequence[Generation]) -> None:
        """Cancel what has not ended, so that no error leaves a block taken."""
        for generation in generations:
            if generation.completion is None:
                self.cancel(generation.number)

    def _next_pass(self, runs: Sequence[Run]) -> _Pass:
        """The stream of what is to be computed, the shortest runs first."""
        if any(run.stop - run.start > 1 for run in runs):
            runs = sorted(runs, key=lambda run: run.stop - run.start)
        ids = [id for run in runs for id in run.generation.ids[run.start : run.stop]]
        spans = [_span(run) for run in runs]
        attend = PagedAttention(self._cache, self._kernel, self._slots.rows_SW, spans)
        device = self.decoder.device
        drawing = [run.generation for run in runs if run.draws]
        lasts_B: Tensor | slice = slice(None)
        if len(drawing) != len(ids):
            ends = np.cumsum([span.count for span in spans]) - 1
            lasts_B = torch.from_numpy(ends[[run.draws for run in runs]]).to(device)
        return _Pass((torch.tensor(ids, device=device), attend.positions_N, attend), drawing, lasts_B)

    def _draw(self, running: Sequence[Generation], logits_BV: Tensor) -> list[Token]:
        numbers = [g.number for g in running]
        if self._sampler is None or self._sampler[0] != numbers:
            self._sampler = numbers, Sampler([g.request.sampling for g in running], logits_BV.device)
        streams, steps = [g.stream for g in running], [g.drawn for g in running]
        ids_B = self._sampler[1].choose(logits_BV[:, : self.vocabulary], streams, steps)
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
        # All is made anew: a Ctrl-C may have come amid a change.
        for generation in self._scheduler.all():
            if generation.completion is None:
                generation.end("cancelled")
        self._sampler = None
        limit = self._pool.limit
        self._begin()
        self._pool.limit = limit


def _span(run: Run) -> Span:
    slot = run.generation.slot
    assert slot is not None
    return Span(slot, run.start, run.stop, len(run.generation.request.prompt_ids))


def _listed(faults: Sequence[Sequence[str]]) -> str:
    if len(faults) == 1:
        return "The request cannot be run: " + "; ".join(faults[0]) + "."
    lines = [f"request {number}: {'; '.join(found)}" for number, found in enumerate(faults, 1) if found]
    return "\n".join([f"{len(lines)} of {len(faults)} requests cannot be run:", *lines])
