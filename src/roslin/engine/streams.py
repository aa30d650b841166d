"""A pass's tokens as the decoder takes them: ids, positions, and who sees whom."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from roslin.engine.beginnings import Beginnings
from roslin.engine.cache import KVCache
from roslin.engine.paged import PagedAttention, Span, kernel_for
from roslin.engine.resident import Resident
from roslin.engine.scheduler import Run
from roslin.engine.slots import Slots
from roslin.model import Attend

UNREAD = -1
"""Instead of an id that nobody has read yet: it stands in its slot on the device."""


def has_kernels(device: torch.device) -> bool:
    """Whether attention on this device runs by Triton's kernels."""
    return device.type == "cuda" and find_spec("triton") is not None


@dataclass(frozen=True)
class Stream:
    """One pass. `lasts_B` are the places of the tokens after which one is drawn, `slots_B` their slots.

    `seen_B` are their positions, by Triton's kernels -1 where a sequence has ended of which the host does not know yet.
    """

    ids_N: Tensor
    positions_N: Tensor
    attend: Attend
    lasts_B: Tensor | slice
    slots_B: Tensor
    seen_B: Tensor


class Streams:
    """Lays passes out for one cache."""

    def __init__(self, cache: KVCache, slots: Slots, resident: Resident, *, kernels: bool, reach: bool) -> None:
        """`kernels`: by Triton's kernels. `reach`: positions depend on how long a sequence is."""
        self._cache, self._slots, self._resident = cache, slots, resident
        self._kernels, self._reach = kernels, reach
        self._kernel = kernel_for(cache.dtype, cache.device)
        self._beginnings = beginnings_of(cache, slots) if kernels else None

    def of(self, runs: Sequence[Run]) -> Stream:
        """The stream of these runs, the shortest first."""
        counts = np.array([run.stop - run.start for run in runs])
        slots_R = np.array([run.generation.slot for run in runs])
        starts_R = np.array([run.start for run in runs])
        ends_R = counts.cumsum()
        total = int(ends_R[-1])
        # Rows of even length, so that each begins where 16 bytes do: kernels are compiled for that.
        numbers_SN = np.zeros((3, total + total % 2), dtype=np.int64)
        numbers_SN[0, :total] = _ids(runs)
        numbers_SN[1, :total] = np.repeat(starts_R, counts) + _within(counts)
        numbers_SN[2, :total] = np.repeat(slots_R, counts)
        ids_N, positions_N, slots_N = self._resident.sent(numbers_SN)[:, :total]
        seen_N = positions_N
        if self._kernels:
            self._resident.update()
        if (numbers_SN[0] == UNREAD).any():
            if self._kernels:
                from roslin.engine.gpu.ends import begin

                ids_N, positions_N, seen_N = begin(self._resident, slots_N, positions_N, ids_N)
            else:
                ids_N = torch.where(ids_N == UNREAD, self._resident.latest_S[slots_N], ids_N)
        lasts_B: Tensor | slice = slice(None)
        slots_B, seen_B = slots_N, seen_N
        draws_R = np.array([run.draws for run in runs])
        if total != draws_R.sum():
            lasts_B = self._resident.sent(np.repeat(ends_R - draws_R, draws_R) + _within(draws_R))
            slots_B, seen_B = slots_N[lasts_B], seen_N[lasts_B]
        if self._kernels:
            attend = self._by_kernels(runs, slots_N, seen_N, counts, slots_R, starts_R, ends_R)
        else:
            attend = self._plain(runs)
        return Stream(ids_N, positions_N, attend, lasts_B, slots_B, seen_B)

    def _plain(self, runs: Sequence[Run]) -> Attend:
        spans = [
            Span(run.generation.slot or 0, run.start, run.stop, len(run.generation.request.prompt_ids)) for run in runs
        ]
        return PagedAttention(self._cache, self._kernel, self._slots.rows_SW, spans)

    def _by_kernels(
        self, runs: Sequence[Run], slots_N: Tensor, seen_N: Tensor, counts: npt.NDArray[np.int64],
        slots_R: npt.NDArray[np.int64], starts_R: npt.NDArray[np.int64], ends_R: npt.NDArray[np.int64],
    ) -> Attend:  # fmt: skip
        from roslin.engine.gpu.paged import RUN, GpuAttention, SharedPlaces, Tokens, shares

        alone = int((counts == 1).sum())
        runs_T4 = None
        if alone < len(runs) or not all(run.generation.resident for run in runs):
            tiles_R = -(-counts[alone:] // RUN)
            within_T = _within(tiles_R) * RUN
            counts_T, slots_T, starts_T, ends_T = (
                np.repeat(each[alone:], tiles_R) for each in (counts, slots_R, starts_R, ends_R)
            )
            tiles_T4 = np.stack(
                (ends_T - counts_T + within_T, np.minimum(RUN, counts_T - within_T), starts_T + within_T, slots_T), 1
            )
            runs_T4 = self._resident.sent(tiles_T4.astype(np.int32))
        reach_N = None
        if self._reach:
            prompts_R = np.array([len(run.generation.request.prompt_ids) for run in runs])
            prompts_N = self._resident.sent(np.repeat(prompts_R, counts))
            reach_N = torch.maximum(prompts_N, seen_N + 1)
        shared = None
        if self._beginnings is not None and alone > 1:
            found = self._beginnings.shared(slots_R[:alone].tolist(), starts_R[:alone].tolist())
            if found is not None:
                commons_N, tiles_TX = (self._resident.sent(x) for x in (found.commons_N, found.tiles_TX))
                shared = SharedPlaces(commons_N, tiles_TX, shares(alone))
        return GpuAttention(
            self._cache, self._resident.tables_SW, Tokens(slots_N, seen_N, alone, runs_T4, reach_N, shared)
        )


def beginnings_of(cache: KVCache, slots: Slots) -> Beginnings | None:
    """What finds beginnings that kernels can read once for several; None where they cannot."""
    from roslin.engine.gpu.paged import members

    at_once = members(*cache.heads[:2])
    return Beginnings(slots, at_once) if at_once > 1 and cache.window is None else None


def _ids(runs: Sequence[Run]) -> list[int]:
    """The ids that are known, and UNREAD for those that are not: the last one of a run of one."""
    ids: list[int] = []
    for run in runs:
        known = run.generation.ids
        if run.start < len(known):
            ids += known[run.start : run.stop]
            ids += run.proposed
        else:
            ids.append(UNREAD)
    return ids


def _within(counts_R: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Of things that come in runs of so many, the place of each in its run."""
    return np.arange(counts_R.sum()) - np.repeat(counts_R.cumsum() - counts_R, counts_R)
