"""What tokens ask of the paged cache, one by one, and what can answer them."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

Layer = tuple[Tensor, Tensor]
"""One layer's keys and values in the cache, each [blocks, G, BLOCK, K]."""


@dataclass(frozen=True)
class Queries:
    """M tokens, each with the sequence that it belongs to and how much of it it sees, itself included.

    `tables_SW` [slots, width] holds each slot's blocks in the sequence's order, `slots_M` each token's slot and
    `lengths_M` its length; all int32, on the device. A token sees at most its last `window` places.
    """

    tables_SW: Tensor
    slots_M: Tensor
    lengths_M: Tensor
    longest: int
    window: int | None


class Kernel(Protocol):
    """Writes to the cache and answers queries, for one kind of device. Scores are taken in fp32."""

    @property
    def chunk(self) -> int:
        """A sequence's run of up to so many tokens is best asked token by token."""
        ...

    def write(self, layer: Layer, k_NGK: Tensor, v_NGK: Tensor, places_N: Tensor) -> None:
        """Keep keys and values; a place is `block * BLOCK + offset`, int64."""
        ...

    def attend(self, layer: Layer, q_MHK: Tensor, queries: Queries) -> Tensor:
        """What each token gathers, [M, H, K]."""
        ...

    def attend_last(self, q_CHK: Tensor, k_TGK: Tensor, v_TGK: Tensor, window: int | None) -> Tensor:
        """What a sequence's last C tokens gather, [C, H, K], of all its T tokens up to themselves."""
        ...
