"""The engine: many requests at once through one decoder, a step at a time.

It is not made for several threads: whoever owns it calls it from one.
"""

import math
import time
from collections.abc import Sequence
from itertools import islice

import torch

from roslin.engine.blocks import BLOCK, blocks_for
from roslin.engine.cache import check_kept
from roslin.engine.capacity import Capacity, Occupancy, capacity
from roslin.engine.drawn import Drawn
from roslin.engine.generation import Generation
from roslin.engine.network import Network, SharedNetwork
from roslin.engine.passes import Pass, Passes
from roslin.engine.request import Completion, Event, Request
from roslin.engine.scheduler import PROMPT_TOKENS_BESIDE, Scheduler
from roslin.engine.speculation import speculation_for
from roslin.engine.store import Store, lengths_matter, usual_cache
from roslin.engine.streams import has_kernels
from roslin.errors import InputError, MachineError, out_of_memory
from roslin.model.finite import find_fault, not_finite
from roslin.model.grad_mode import no_grad

GRAPHS = False
"""Whether an engine that is not told captures passes as CUDA graphs: not before that has been measured on GPUs."""


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
        ahead: bool | None = None,
        graphs: bool | None = None,
        speculate: bool | None = None,
        draft: Network | None = None,
        cache_dtype: torch.dtype | None = None,
    ) -> None:
        """`vocabulary` is the tokenizer's size: ids at or above it are padding rows of the head and are never drawn.

        At most `max_batch` requests run at once. The cache grows as it is needed, up to `cache_tokens`, or to what
        memory was free when this was made. If `weights_stay` as they are, a request may begin with what an earlier one
        has left in the cache; else only with what those beside it have. `ahead`: each pass begins before the tokens of
        the one before are read, so that a GPU never waits for the host (None: on a GPU). Who stops is then heard of one
        pass late, and what that has drawn for it is dropped; Triton's kernels compute nothing for it. `graphs`: passes
        in which everybody answers are captured as CUDA graphs, for which the weights must stay (None: as GRAPHS says);
        see `prepare`. `speculate`: tokens that follow where an answer's latest ones stood before, in prompt or answer,
        are computed on trial beside them, and kept if they are what is drawn; what comes back is the same, several
        tokens of a pass one step after the other. None: where that is found to be faster, in fp32 on a CPU (whose
        kernels compute in that); False: never; True: whenever there are any. `draft`: a small model of the same
        vocabulary that makes such guesses too, of any device and dtype, but for an fp16 `decoder` never; with it, None
        means on any device in any other dtype.
        `cache_dtype` is that of keys and values: the weights' (None), or fp8, half of 16 bits' memory and reads.
        Raises MachineError for fp8 on a GPU that has none; InputError for a dtype that no cache has, when a head has
        fewer rows than `vocabulary`, or `max_batch` is not positive.
        """
        for network, name in ((decoder, "model"), (draft, "draft model")):
            if network is not None and not 0 < vocabulary <= network.config.vocab_rows:
                raise InputError(
                    f"The tokenizer has {vocabulary} ids and the {name}'s head {network.config.vocab_rows} rows: "
                    f"tokenizer and {name} do not belong together."
                )
        if max_batch < 1:
            raise InputError(f"max_batch is {max_batch}; it must be 1 or more.")
        self.decoder = decoder
        self.vocabulary = vocabulary
        self._max_batch = max_batch
        self._weights_stay = weights_stay
        self._cache_dtype = cache_dtype
        if cache_dtype is not None:
            check_kept(cache_dtype, usual_cache(decoder), decoder.device)
        self._cache_tokens = cache_tokens
        self._ahead = decoder.device.type == "cuda" if ahead is None else ahead
        graphs = GRAPHS if graphs is None else graphs
        self._with_graphs = graphs and weights_stay and has_kernels(decoder.device) and not lengths_matter(decoder)
        self._with_graphs = self._with_graphs and decoder.dtype != torch.float16  # each layer is watched there
        self._with_graphs = self._with_graphs and not isinstance(decoder, SharedNetwork)  # others would not hear of it
        self._speculation = speculation_for(decoder, draft, vocabulary, max_batch, speculate=speculate)
        self.draft = self._speculation.draft if self._speculation else None
        """The draft model with its own cache, where it is asked."""
        self._on_its_way: Pass | None = None
        self._next_number = 0
        self._begin()

    @property
    def _kept(self) -> torch.dtype:
        """The dtype of keys and values: as the decoder is now, which may change while nothing runs."""
        return self._cache_dtype or usual_cache(self.decoder)

    @property
    def capacity(self) -> Capacity:
        """How many tokens, and how many full-length requests, the cache has room for."""
        return Capacity(self._store.pool.limit, self.decoder.config.positions)

    @property
    def occupancy(self) -> Occupancy:
        """What of the cache is in use now."""
        return Occupancy(self._store.pool.held * BLOCK, self._store.pool.left * BLOCK, self._store.pool.limit * BLOCK)

    @property
    def preempted(self) -> int:
        """How often a request had to give way, to be computed again later, as the cache was full."""
        return self._scheduler.preempted

    @property
    def prompts_left(self) -> bool:
        """Whether anybody waits, or has not yet been read to the end of its prompt."""
        return bool(self._scheduler.waiting) or any(one.missing > 1 for one in self._scheduler.running)

    @property
    def busy(self) -> bool:
        """Whether any request runs or waits."""
        return self._scheduler.busy

    @no_grad
    def prepare(self) -> None:
        """Do now what the first request would wait for, as long as there was none, on the thread that will step.

        With CUDA graphs that is to take the cache's memory, and to capture passes of few sequences: seconds, and the
        first time on a machine, when kernels are compiled, half a minute. Those of more are captured when they are
        first wanted, which holds up that step. Raises MachineError where memory does not do or a pass cannot be
        captured.
        """
        if self._with_graphs and not self._store.pool.size:
            self._store.pool.make_all()
            try:
                if self._store.pool.size:
                    self._passes.prepare()
            except BaseException as error:
                self._begin()
                if out_of_memory(error):
                    raise self._short_of_memory() from error
                raise

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
                raise self._short_of_memory() from error
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

    @no_grad
    def _step(self) -> list[Event]:
        if untold := [generation for generation in self._scheduler.running if generation.kept]:
            return self._tell(untold, first=False)
        begun = self._on_its_way is not None
        if self._speculation is not None and not begun:
            self._speculation.propose(self._scheduler.running)
        started = time.perf_counter()
        current, self._on_its_way = self._on_its_way or self._launch(), None
        if current is None:
            return []
        if self._ahead and not self._must_be_read_first(current):
            self._on_its_way = self._launch()
        news = self._settle(current)
        if self._speculation is not None:
            # What a step takes is what a pass takes, if it has begun and read one.
            begins = self._on_its_way is not None
            whole = begun == begins == (self._ahead and not current.guesses)
            seconds = time.perf_counter() - started
            self._speculation.saw(current.runs, seconds, whole=whole, resumed=begins and not begun)
        return news

    def _must_be_read_first(self, current: Pass) -> bool:
        """Whether the next pass depends on what comes of this one: somebody may have to give way, or guesses pay."""
        if self._scheduler.may_be_short or current.guesses:
            return True
        return self._speculation is not None and any(self._speculation.counts(self._scheduler.running))

    def _launch(self) -> Pass | None:
        """Begin the next pass, if there is anything to be computed."""
        runs = self._scheduler.plan()
        return self._passes.begin(runs) if runs else None

    def _settle(self, done: Pass) -> list[Event]:
        """The news of a pass. Of those who have ended since it began, nothing more is heard."""
        if done.drawn is None:
            return []
        if not done.guesses:
            return self._hear(done, done.drawn)
        tokens = iter(done.drawn.read())
        drawn = [(run, list(islice(tokens, run.draws))) for run in done.runs if run.draws]
        heard = [(run, own) for run, own in drawn if run.generation.completion is None]
        for run, own in heard:
            run.generation.keep(run.proposed, own)
        if not all(math.isfinite(token.logprob) for run, _ in heard for token in run.generation.kept):
            raise self._fault(done)
        for run, _ in heard:
            if run.proposed:
                self._store.resident.latest_S[run.generation.slot or 0] = run.generation.kept[-1].id
        return self._tell([run.generation for run, _ in heard], first=True)

    def _hear(self, done: Pass, drawn: Drawn) -> list[Event]:
        """The news of a pass in which nobody has drawn more than one token."""
        tokens, events, ended = drawn.read(), [], []
        drawing = [run.generation for run in done.runs if run.draws]
        if not drawn.finite:  # which does not matter where nobody hears it
            pairs = zip(drawing, tokens, strict=True)
            if not all(math.isfinite(token.logprob) for one, token in pairs if one.completion is None):
                raise self._fault(done)
        for generation, token in zip(drawing, tokens, strict=True):
            if generation.completion is None:
                event = generation.hear(token)
                events.append(event)
                if event.completion:
                    ended.append(generation)
        if ended:
            self._scheduler.remove(*ended)
        return events

    def _tell(self, generations: Sequence[Generation], *, first: bool) -> list[Event]:
        """A token of each, the `first` of those that it has kept of a pass, or the next."""
        events = [generation.tell(first=first) for generation in generations]
        self._scheduler.remove(*(generation for generation in generations if generation.completion))
        return events

    def _fault(self, done: Pass) -> MachineError:
        """Where a pass went wrong, found by running it again."""
        stream = self._store.streams.of([run for run in done.runs if run.generation.completion is None])
        what = stream.ids_N, stream.positions_N, stream.attend
        hidden_ND = self.decoder.hidden(*what)
        return not_finite(find_fault(self.decoder, *what, hidden_ND), self.decoder.dtype)

    def _short_of_memory(self) -> MachineError:
        return MachineError(f"Out of memory on {self.decoder.device}: lower max_batch, or shorten.")

    def _submit_all(self, requests: Sequence[Request]) -> list[Generation]:
        if not self.busy:
            self._on_its_way = None
            self._catch_up()
        self.prepare()
        faults = [self._faults(request) for request in requests]
        if any(faults):
            raise InputError(_listed(faults))
        generations = [Generation(number, request) for number, request in enumerate(requests, self._next_number)]
        self._next_number += len(generations)
        self._scheduler.waiting.extend(generations)
        return generations

    def _faults(self, request: Request) -> list[str]:
        found = request.faults(self.vocabulary, self.decoder.config.positions)
        if not found and blocks_for(request.most_cached) > self._store.pool.limit:
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
            drafting = self.draft.token_bytes if self.draft else 0
            blocks = capacity(config, dtype, device, self._max_batch, drafting, self._kept).blocks
        else:
            blocks = self._cache_tokens // BLOCK
        self._on_its_way = None
        kernels = has_kernels(device)
        self._store = Store(self.decoder, blocks, self._max_batch, kernels=kernels, kept=self._kept)
        self._passes = Passes(self.decoder, self._store, self.vocabulary, kernels=kernels, graphs=self._with_graphs)
        if self.draft is not None:
            self.draft.begin(blocks, kernels=has_kernels(self.draft.device))
        beside = PROMPT_TOKENS_BESIDE.get(device.type, PROMPT_TOKENS_BESIDE["cuda"])
        self._scheduler = Scheduler(self._store.pool, self._store.slots, beside, self._store.original)

    def _catch_up(self) -> None:
        """While nothing runs: let go of what other weights have left."""
        if not self._store.cache.fits(self._kept, self.decoder.device):
            self._begin()
        elif not self._weights_stay:
            self._store.pool.forget()
            if self.draft is not None:
                self.draft.forget()

    def _abandon(self, generations: Sequence[Generation]) -> None:
        """Cancel what has not ended, so that no error leaves a block taken."""
        for generation in generations:
            if generation.completion is None:
                self.cancel(generation.number)

    def _drop_all(self) -> None:
        """Cancel everything and forget the cache, whose NaN would outlive the one that wrote them."""
        # All is made anew: a Ctrl-C may have come amid a change.
        for generation in self._scheduler.all():
            if generation.completion is None:
                generation.end("cancelled")
        limit = self._store.pool.limit
        self._begin()
        self._store.pool.limit = limit


def _listed(faults: Sequence[Sequence[str]]) -> str:
    if len(faults) == 1:
        return "The request cannot be run: " + "; ".join(faults[0]) + "."
    lines = [f"request {number}: {'; '.join(found)}" for number, found in enumerate(faults, 1) if found]
    return "\n".join([f"{len(lines)} of {len(faults)} requests cannot be run:", *lines])
