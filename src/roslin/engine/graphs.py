"""Steps in which every sequence computes one token, captured as CUDA graphs: one launch instead of hundreds."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from roslin.engine.cache import KVCache
from roslin.engine.gpu.paged import GpuAttention, Tokens
from roslin.engine.network import Network
from roslin.engine.resident import Resident

BUCKETS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024)
"""Numbers of rows for which there are graphs; rows that nobody needs write nothing."""
NOBODY = -1
"""The position of such a row."""


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
        self._graphs: dict[tuple[int, bool], torch.cuda.CUDAGraph] = {}
        self._capture = capture
        self._pool = torch.cuda.graph_pool_handle() if capture else None
        device, rows = resident.device, decoder.config.vocab_rows
        self._inputs = torch.zeros(2 * max_batch, dtype=torch.int64, device=device)
        self._ids_B = torch.zeros(max_batch, dtype=torch.int64, device=device)
        self._logprobs_B = torch.zeros(max_batch, device=device)
        self._logits_BV = torch.empty(max_batch, rows, device=device)

    def greedy(self, slots: Sequence[int], positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The most probable id of each sequence, and its log-probability, [B] each; they hold until the next step.

        The latest tokens are read from their slots on the device, and the new ones are left there.
        """
        self._step(slots, positions, greedy=True)
        return self._ids_B[: len(slots)], self._logprobs_B[: len(slots)]

    def logits(self, slots: Sequence[int], positions: Sequence[int]) -> Tensor:
        """The logits of each sequence in float32, [B, V]; they hold until the next step."""
        self._step(slots, positions, greedy=False)
        return self._logits_BV[: len(slots)]

    def _step(self, slots: Sequence[int], positions: Sequence[int], *, greedy: bool) -> None:
        bucket = next(size for size in self._buckets if size >= len(slots))
        if self._capture and (bucket, greedy) not in self._graphs:
            self._graphs[bucket, greedy] = self._captured(bucket, greedy)
        self._fill(bucket, slots, positions)
        if self._capture:
            self._graphs[bucket, greedy].replay()
        else:
            self._compute(bucket, greedy)

    def _fill(self, bucket: int, slots: Sequence[int], positions: Sequence[int]) -> None:
        inputs_TB = np.empty((2, bucket), dtype=np.int64)
        inputs_TB[0, : len(slots)], inputs_TB[0, len(slots) :] = slots, self._resident.spare
        inputs_TB[1, : len(slots)], inputs_TB[1, len(slots) :] = positions, NOBODY
        self._inputs[: 2 * bucket].copy_(self._resident.sent(inputs_TB.reshape(-1)), non_blocking=True)

    def _captured(self, bucket: int, greedy: bool) -> torch.cuda.CUDAGraph:
        self._fill(bucket, [], [])
        # torch's own constructor is without types.
        aside = torch.cuda.Stream(self._resident.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(2):  # kernels are loaded, and libraries choose theirs, before anything is captured
                self._compute(bucket, greedy)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            self._compute(bucket, greedy)
        return graph

    def _compute(self, bucket: int, greedy: bool) -> None:
        slots_B, positions_B = self._inputs[: 2 * bucket].view(2, bucket)
        attend = GpuAttention(self._cache, self._resident.tables_SW, Tokens(slots_B, positions_B, bucket, None))
        ids_B = self._resident.latest_S[slots_B]
        logits_BV = self._decoder.logits(self._decoder.hidden(ids_B, positions_B.clamp(min=0), attend))
        if not greedy:
            self._logits_BV[:bucket] = logits_BV
            return
        logits_BV = logits_BV.float()
        best_B = logits_BV[:, : self._vocabulary].argmax(-1)
        total_B = torch.logsumexp(logits_BV, -1)
        self._ids_B[:bucket] = best_B
        self._logprobs_B[:bucket] = logits_BV.gather(-1, best_B[:, None])[:, 0] - total_B
        self._resident.latest_S[slots_B] = best_B
