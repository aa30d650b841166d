"""What the engine runs: a plain decoder, or one whose weights were fused for speed."""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from roslin.model import Attend, ModelConfig

if TYPE_CHECKING:
    from roslin.engine.cache import KVCache


class Network(Protocol):
    """The part of `roslin.model.Decoder` that the engine uses."""

    @property
    def config(self) -> ModelConfig:
        """Sizes and choices."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the arithmetic."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    def hidden(self, ids_N: Tensor, positions_N: Tensor, attend: Attend, places_M: Tensor | None = None) -> Tensor:
        """The hidden states after the final norm, [N, D]; or those of `places_M` alone, [M, D], which may cost less."""
        ...

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """The logits of every row of the head, [N, V]."""
        ...


@runtime_checkable
class SharedNetwork(Network, Protocol):
    """One of which other processes hold parts, which compute every pass as it does."""

    def new_cache(self, blocks: int, sequences: int, dtype: torch.dtype) -> "tuple[KVCache, int]":
        """An empty cache in all, and how many of the `blocks` wanted for so many sequences each has room for."""
        ...
