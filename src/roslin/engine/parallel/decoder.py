"""A model that several processes hold together, as the first one sees it: a network like any other.

The first process has the engine, and draws every token. For each pass it tells the others the ids, and who sees whom;
they compute it with it, each with its own share and its own heads' keys and values, and remember nothing else.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from roslin.engine.blocks import BLOCK
from roslin.engine.cache import KVCache
from roslin.engine.network import Network
from roslin.engine.parallel.attends import Description, SharedCache, described, made
from roslin.engine.parallel.team import End, Team
from roslin.memory import Device, cache_tokens
from roslin.model import Attend, ModelConfig
from roslin.model.finite import Watched
from roslin.model.grad_mode import no_grad


@dataclass(frozen=True)
class Provide:
    """Have so many blocks in a cache, and forget those that are not `kept`."""

    cache: int
    dtype: torch.dtype
    blocks: int
    kept: tuple[int, ...]


@dataclass(frozen=True)
class Hidden:
    """Compute a pass."""

    attend: Description


@dataclass(frozen=True)
class Logits:
    """Compute logits of hidden states."""


class ParallelDecoder:
    """Equals the model of which each process has a share."""

    def __init__(self, share: Network, team: Team, vocab_rows: int, free: tuple[int, int]) -> None:
        """`share` is this process's network; `free` the bytes that are free in the fullest process, and all there are.

        The configuration counts this process's heads, for they are what its cache holds, and all rows of the head.
        """
        self.config: ModelConfig = replace(share.config, vocab_rows=vocab_rows)
        self.dtype, self.device = share.dtype, share.device
        self._free = free
        self._share, self._team = share, team
        self._caches: WeakValueDictionary[int, ParallelCache] = WeakValueDictionary()
        self._made = 0
        self._lock = threading.RLock()

    def hidden(self, ids_N: Tensor, positions_N: Tensor, attend: Attend, places_M: Tensor | None = None) -> Tensor:
        """The hidden states after the final norm, [N, D], or [M, D] of some places alone.

        Raises UsageError for an `attend` that is not of the engine's cache.
        """
        what, tensors = described(attend)
        with self._all_do(Hidden(what), ids_N.contiguous(), positions_N.contiguous(), *tensors):
            hidden_ND = self._share.hidden(ids_N, positions_N, attend)
            if isinstance(attend, Watched):
                attend.join(self._team.sum)
        return hidden_ND if places_M is None else hidden_ND[places_M]

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """The logits of every row of the head, [N, V]."""
        hidden_ND = hidden_ND.contiguous()
        with self._all_do(Logits(), hidden_ND):
            logits_NV = self._team.gathered(self._share.logits(hidden_ND))
        assert logits_NV is not None
        return logits_NV[:, : self.config.vocab_rows]

    def new_cache(self, blocks: int, sequences: int, dtype: torch.dtype) -> "tuple[ParallelCache, int]":
        """An empty cache in all processes, and how many of the `blocks` wanted for so many sequences fit in each."""
        self._made += 1
        cache = self._caches[self._made] = ParallelCache(self, self._made, dtype)
        where: Device = "cuda" if self.device.type == "cuda" else "cpu"
        room = cache_tokens(self.config, self.dtype.itemsize, sequences, *self._free, where, kept=dtype.itemsize)
        return cache, min(blocks, room // BLOCK)

    def provide(self, cache: "ParallelCache", blocks: int) -> bool:
        """Have so many blocks of a cache in every process; False where one of them has no memory."""
        with self._all_do(Provide(cache.number, cache.dtype, blocks, tuple(self._caches))):
            return self._team.all_agree(KVCache.provide(cache, blocks))

    def end(self) -> None:
        """Let the other processes go."""
        self._team.dismiss()

    @contextmanager
    def _all_do(self, what: object, *tensors: Tensor) -> Iterator[None]:
        with self._lock, self._team.in_step():
            self._team.order(what, tensors)
            yield


class ParallelCache(SharedCache):
    """The first process's part of a cache that grows in all of them."""

    def __init__(self, decoder: ParallelDecoder, number: int, dtype: torch.dtype) -> None:
        """`number` names it."""
        super().__init__(decoder.config, dtype, decoder.device)
        self.number = number
        self._decoder = decoder

    def provide(self, blocks: int) -> bool:
        """Have so many blocks everywhere, the content of the old ones kept; False where memory is lacking."""
        return self._decoder.provide(self, blocks)


@no_grad
def follow(share: Network, team: Team) -> None:
    """In every process but the first: do as one is told, until there is no more to do. Raises EOFError when it dies."""
    caches: dict[int, KVCache] = {}
    while True:
        what, tensors = team.next_order()
        match what:
            case End():
                return
            case Provide(number, dtype, blocks, kept):
                caches = {one: cache for one, cache in caches.items() if one in kept}
                cache = caches.setdefault(number, KVCache(share.config, dtype, share.device))
                team.all_agree(cache.provide(blocks))
            case Hidden(described_as):
                ids_N, positions_N, *others = tensors
                attend = made(described_as, others, caches)
                share.hidden(ids_N, positions_N, attend)
                if isinstance(attend, Watched):
                    attend.join(team.sum)
            case Logits():
                team.gathered(share.logits(tensors[0]))
