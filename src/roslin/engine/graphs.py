"""Steps in which every sequence computes one token, captured as CUDA graphs: one launch instead of hundreds."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from roslin.engine.beginnings import Shared
from roslin.engine.cache import KVCache
from roslin.engine.gpu.choice import Draws, choose
from roslin.engine.gpu.ends import begin, keep
from roslin.engine.gpu.paged import GpuAttention, SharedPlaces, Tokens, shares
from roslin.engine.network import Network
from roslin.engine.resident import Resident
from roslin.engine.streams import beginnings_of
from roslin.errors import MachineError, out_of_memory

BUCKETS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024)
"""Numbers of rows for which there are graphs; rows that nobody needs write nothing."""
NOBODY = -1
"""The position of such a row."""
INPUTS = 5
"""Of each row: slot, position, key, and as two more the four limits of what may be drawn."""

FEW = 16
"""Rows up to which steps are captured beforehand."""

End = Literal["best", "drawn", "logits"]
"""What becomes of a step's logits: the best id, one drawn, or nothing."""
DRAWING: tuple[End, ...] = ("best", "drawn")
Kind = tuple[int, End, bool]
"""Of a step: its rows, what is done with the logits, and whether any rows share beginnings."""


class Graphs:
    """A decoder's steps over one cache, each captured when it is first wanted.

    They hold for as long as weights and cache stay where they are.
    """

    def __init__(
        self,
        decoder: Network,
        cache: KVCache,
        resident: Resident,
        vocabulary: int,
        max_batch: int,
        *,
        capture: bool = True,
    ) -> None:
        """Without `capture`, the same steps run call by call: that is how they are tested without a GPU."""
        self._decoder, self._cache, self._resident, self._vocabulary = decoder, cache, resident, vocabulary
        self._buckets = sorted({*(size for size in BUCKETS if size < max_batch), max_batch})
        self._graphs: dict[Kind, torch.cuda.CUDAGraph] = {}
        self._beginnings = beginnings_of(cache, resident.slots)
        self._capture = capture
        self._pool = torch.cuda.graph_pool_handle() if capture else None
        device, rows = resident.device, decoder.config.vocab_rows
        self._inputs = torch.zeros(INPUTS * max_batch, dtype=torch.int64, device=device)
        self._shared = self._room_for_shared(max_batch)
        self._seen_B = torch.zeros(max_batch, dtype=torch.int64, device=device)
        self._ids_B = torch.zeros(max_batch, dtype=torch.int64, device=device)
        self._logprobs_B = torch.zeros(max_batch, device=device)
        self._logits_BV = torch.empty(max_batch, rows, device=device)

    def prepare(self) -> None:
        """Capture steps of few rows, the most first: of memory that one has used the next takes what it needs."""
        for bucket in reversed([size for size in self._buckets if size <= FEW]):
            for end in DRAWING:
                self._have((bucket, end, False))

    def drawn(self, slots: Sequence[int], positions: Sequence[int], draws: Draws | None) -> tuple[Tensor, Tensor]:
        """The id that is drawn for each sequence, and its log-probability, [B] each; they hold until the next step.

        Without `draws` all take the best. The latest tokens are read from their slots on the device, and the new ones
        are left there. A sequence that has ended there by itself computes nothing: what is said to be drawn for it
        means nothing, and its latest token stays.
        """
        self._step(slots, positions, "best" if draws is None else "drawn", draws)
        return self._ids_B[: len(slots)], self._logprobs_B[: len(slots)]

    def logits(self, slots: Sequence[int], positions: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The logits of each sequence in float32, [B, V], its slot, and its position (-1 where it has ended), [B] each.

        They hold until the next step. What is drawn must be left to `ends.keep`.
        """
        self._step(slots, positions, "logits")
        rows = len(slots)
        return self._logits_BV[:rows], self._inputs[:rows], self._seen_B[:rows]

    def _step(self, slots: Sequence[int], positions: Sequence[int], end: End, draws: Draws | None = None) -> None:
        bucket = next(size for size in self._buckets if size >= len(slots))
        found = None if self._beginnings is None else self._beginnings.shared(slots, positions, bucket)
        kind = bucket, end, found is not None
        self._have(kind)
        self._fill(bucket, slots, positions, draws, found)
        if self._capture:
            self._graphs[kind].replay()
        else:
            self._compute(*kind)

    def _fill(
        self, bucket: int, slots: Sequence[int], positions: Sequence[int], draws: Draws | None = None,
        found: Shared | None = None,
    ) -> None:  # fmt: skip
        inputs_TB = np.zeros((INPUTS, bucket), dtype=np.int64)
        inputs_TB[0, : len(slots)], inputs_TB[0, len(slots) :] = slots, self._resident.spare
        inputs_TB[1, : len(slots)], inputs_TB[1, len(slots) :] = positions, NOBODY
        if draws is not None:
            inputs_TB[2, : len(slots)] = draws.keys_B
            inputs_TB[3:].reshape(-1).view(np.float32).reshape(bucket, 4)[: len(slots)] = draws.limits_B4
        self._resident.send(inputs_TB.reshape(-1), self._inputs[: INPUTS * bucket])
        if found is not None:
            numbers = np.concatenate((found.commons_N, found.tiles_TX.reshape(-1)))
            self._resident.send(numbers, self._shared[: len(numbers)])

    def _room_for_shared(self, rows: int) -> Tensor:
        """Where the shared places of so many rows are put, or fewer: zeros, which are nobody's."""
        tiles = self._beginnings.tiles(rows) * (2 + self._beginnings.members) if self._beginnings else 0
        return torch.zeros(rows + tiles, dtype=torch.int32, device=self._resident.device)

    def _have(self, kind: Kind) -> None:
        """Capture a step, if steps are captured and this one has not been. Raises MachineError where that fails."""
        if not self._capture or kind in self._graphs:
            return
        try:
            self._graphs[kind] = self._captured(*kind)
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            raise MachineError(
                f"A pass of {kind[0]} sequences cannot be captured as a CUDA graph on {self._resident.device}: "
                f"{error}. Answer without graphs."
            ) from error

    def _captured(self, bucket: int, end: End, shared: bool) -> torch.cuda.CUDAGraph:
        self._fill(bucket, [], [])
        self._shared.zero_()
        # torch's own constructor is without types.
        aside = torch.cuda.Stream(self._resident.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(2):  # kernels are loaded, and libraries choose theirs, before anything is captured
                self._compute(bucket, end, shared)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            self._compute(bucket, end, shared)
        return graph

    def _places(self, bucket: int) -> SharedPlaces:
        """Where a captured step finds what its rows share."""
        assert self._beginnings is not None
        columns = 2 + self._beginnings.members
        tiles = self._shared[bucket : bucket + self._beginnings.tiles(bucket) * columns]
        return SharedPlaces(self._shared[:bucket], tiles.view(-1, columns), shares(bucket))

    def _compute(self, bucket: int, end: End, shared: bool) -> None:
        slots_B, positions_B, keys_B = self._inputs[: 3 * bucket].view(3, bucket)
        begun = begin(self._resident, slots_B, positions_B)
        tokens = Tokens(slots_B, begun.seen_N, bucket, None, shared=self._places(bucket) if shared else None)
        attend = GpuAttention(self._cache, self._resident.tables_SW, tokens)
        logits_BV = self._decoder.logits(self._decoder.hidden(begun.ids_N, begun.positions_N, attend))
        if end == "logits":
            self._logits_BV[:bucket], self._seen_B[:bucket] = logits_BV, begun.seen_N
            return
        limits_B4 = self._inputs[3 * bucket : INPUTS * bucket].view(torch.float32).view(bucket, 4)
        draws = None if end == "best" else (keys_B, limits_B4)
        choose(logits_BV, self._vocabulary, draws, self._ids_B[:bucket], self._logprobs_B[:bucket])
        keep(self._resident, slots_B, begun.seen_N, self._ids_B[:bucket])
