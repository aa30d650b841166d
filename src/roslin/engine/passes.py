"""Passes of the decoder over its store: what is computed, and what is drawn after it, without a word to the host."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from roslin.engine.drawn import Drawn
from roslin.engine.generation import Generation
from roslin.engine.network import Network
from roslin.engine.noise import step_keys
from roslin.engine.sampler import Samplers, log_sums
from roslin.engine.scheduler import Run
from roslin.engine.store import Store
from roslin.model.finite import watched_hidden

if TYPE_CHECKING:
    from roslin.engine.gpu.choice import Draws
    from roslin.engine.graphs import Graphs


@dataclass(frozen=True)
class Pass:
    """One pass of the decoder, done or on its way, and what is drawn after it."""

    runs: Sequence[Run]
    drawn: Drawn | None
    guesses: bool
    """Whether it computes any guessed token."""


class Passes:
    """Begins passes, each of which may begin before the tokens of the one before are read."""

    def __init__(self, network: Network, store: Store, vocabulary: int, *, kernels: bool, graphs: bool) -> None:
        """Ids at or above `vocabulary` are never drawn. `kernels`: by Triton's. `graphs`: see `Engine`."""
        self._network, self._store, self._vocabulary = network, store, vocabulary
        self._kernels, self._with_graphs = kernels, graphs
        self._samplers = Samplers()
        self._graphs: tuple[int, Graphs] | None = None
        """Beside the number of blocks that the cache had, which has not moved while it has as many."""

    def prepare(self) -> None:
        """Capture passes of few sequences, where passes are captured. Raises MachineError where one cannot be."""
        if self._with_graphs:
            self._captured().prepare()

    def begin(self, runs: list[Run]) -> Pass:
        """Begin the pass that computes these runs, in order of their lengths where these differ."""
        guesses = any(run.proposed for run in runs)
        if self._with_graphs and not guesses and all(run.generation.resident for run in runs):
            drawn: Drawn | None = self._replayed(runs)
        else:
            drawn = self._computed(runs)
        for run in runs:
            if run.draws:
                run.generation.pending += 1
                run.generation.resident = True
        return Pass(runs, drawn, guesses)

    def _computed(self, runs: list[Run]) -> Drawn | None:
        if any(run.stop - run.start > 1 for run in runs):
            runs.sort(key=lambda run: run.stop - run.start)
        stream = self._store.streams.of(runs)
        hidden_ND = watched_hidden(self._network, stream.ids_N, stream.positions_N, stream.attend)
        if not any(run.draws for run in runs):
            return None
        logits_BV = self._network.logits(hidden_ND[stream.lasts_B])
        return self._draw(runs, logits_BV, stream.slots_B, stream.seen_B)

    def _replayed(self, runs: Sequence[Run]) -> Drawn:
        """What is drawn after a pass in which everybody computes the token that stands in its slot on the device."""
        slots, positions = [run.generation.slot or 0 for run in runs], [run.start for run in runs]
        self._store.resident.update()
        graphs, drawing = self._captured(), [run.generation for run in runs]
        if not any(one.request.top_logprobs for one in drawing):
            return Drawn(*graphs.drawn(slots, positions, self._draws(drawing)))
        return self._draw(runs, *graphs.logits(slots, positions))

    def _captured(self) -> "Graphs":
        if self._graphs is None or self._graphs[0] != self._store.cache.blocks:
            from roslin.engine.graphs import Graphs

            capture = self._network.device.type == "cuda"
            cache, resident = self._store.cache, self._store.resident
            made = Graphs(self._network, cache, resident, self._vocabulary, resident.spare, capture=capture)
            self._graphs = cache.blocks, made
        return self._graphs[1]

    def _draw(self, runs: Sequence[Run], logits_BV: Tensor, slots_B: Tensor, seen_B: Tensor) -> Drawn:
        drawing = [(run.generation, place) for run in runs for place in range(run.draws)]
        running, steps = [g for g, _ in drawing], [g.drawn + g.pending + place for g, place in drawing]
        counts = [g.request.top_logprobs for g in running]
        if self._kernels and not any(counts):
            from roslin.engine.gpu.choice import chosen

            draws = self._draws(running, steps)
            ids_B, logprobs_B = chosen(logits_BV, self._vocabulary, draws, self._store.resident.sent)
            self._keep(runs, slots_B, seen_B, ids_B)
            return Drawn(ids_B, logprobs_B)
        logits_BV = logits_BV.float()
        ids_B = self._samplers.choose(running, steps, logits_BV[:, : self._vocabulary])
        self._keep(runs, slots_B, seen_B, ids_B)
        total_B1 = log_sums(logits_BV)[:, None]
        logprobs_B = (logits_BV.gather(-1, ids_B[:, None]) - total_B1)[:, 0]
        if not any(counts):
            return Drawn(ids_B, logprobs_B)
        best_BK, best_ids_BK = logits_BV[:, : self._vocabulary].topk(max(counts))
        return Drawn(ids_B, logprobs_B, (best_ids_BK, best_BK - total_B1), counts)

    def _draws(self, drawing: Sequence[Generation], steps: Sequence[int] | None = None) -> "Draws | None":
        """How these draw, each at its step of its random stream (None: its next); None where all take the best."""
        samplings = [generation.request.sampling for generation in drawing]
        if all(sampling.greedy for sampling in samplings):
            return None
        from roslin.engine.gpu.choice import Draws, limits_of

        streams_B = np.array([generation.stream for generation in drawing], dtype=np.uint64)
        steps = [generation.drawn + generation.pending for generation in drawing] if steps is None else steps
        return Draws(step_keys(streams_B, np.array(steps)), limits_of(samplings))

    def _keep(self, runs: Sequence[Run], slots_B: Tensor, seen_B: Tensor, ids_B: Tensor) -> None:
        """Leave the latest tokens in their slots. What is drawn behind a wrong guess must end nobody."""
        resident = self._store.resident
        if self._kernels and not any(run.proposed for run in runs):
            from roslin.engine.gpu.ends import keep

            keep(resident, slots_B, seen_B, ids_B)
        else:
            resident.latest_S[slots_B] = ids_B
