"""Tokens on their way from the device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from roslin.engine.request import Token


class Drawn:
    """What a pass has drawn for each of its rows; on a GPU it is copied while the host does something else."""

    def __init__(
        self, ids_B: Tensor, logprobs_B: Tensor, tops: tuple[Tensor, Tensor] | None = None, counts: Sequence[int] = ()
    ) -> None:
        """`tops` are the most probable ids and their log-probabilities, [B, K] each, `counts` how many a row wants."""
        # Ids are far below 2^24: float32 holds them.
        found = [torch.stack((ids_B.float(), logprobs_B)), *(tops or ())]
        self._counts = counts
        self._ready: torch.cuda.Event | None = None
        self._found = found
        if ids_B.is_cuda:
            self._found = [torch.empty(x.shape, dtype=x.dtype, pin_memory=True) for x in found]
            for mine, its in zip(self._found, found, strict=True):
                mine.copy_(its, non_blocking=True)
            self._ready = torch.cuda.current_stream().record_event()

    @property
    def finite(self) -> bool:
        """Whether all log-probabilities are numbers, once they are read."""
        return bool(self._found[0][1].isfinite().all())

    def read(self) -> list[Token]:
        """The tokens, a row each, when they are there."""
        if self._ready is not None:
            self._ready.synchronize()
        ids, logprobs = self._found[0][0].long().tolist(), self._found[0][1].tolist()
        if len(self._found) == 1:
            return list(map(Token, ids, logprobs))
        best = zip(self._found[1].tolist(), self._found[2].tolist(), self._counts, strict=True)
        tops = [tuple(zip(own[:count], its[:count], strict=True)) for own, its, count in best]
        return list(map(Token, ids, logprobs, tops))
