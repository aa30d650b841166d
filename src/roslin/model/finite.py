"""Finding the layer at which numbers stop being finite: in float16 this family overflows, and some of it in silence.

A key that overflowed can give a score of minus infinity, which attention takes for a place not to look at: the answer
would only be wrong. So the inputs and the output of every layer's attention are watched, and not the logits alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from roslin.errors import MachineError
from roslin.model.grad_mode import no_grad

if TYPE_CHECKING:
    from collections.abc import Callable

    from roslin.model.attention import Attend
    from roslin.model.config import ModelConfig


class Runs(Protocol):
    """The part of a decoder that is looked into."""

    @property
    def config(self) -> ModelConfig:
        """Sizes and choices."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the arithmetic."""
        ...

    def hidden(self, ids_N: Tensor, positions_N: Tensor, attend: Attend, places_M: Tensor | None = None) -> Tensor:
        """The hidden states after the final norm, [N, D], or [M, D] of some places alone."""
        ...


class Watched:
    """An `Attend` that keeps, for every layer, a sum that is finite only if all that went in and came out was.

    Sums in float32 of float16 numbers cannot overflow by themselves; they are read once a pass.
    """

    def __init__(self, attend: Attend, layers: int) -> None:
        self.attend = attend
        self.layers = layers
        self._sums_L2: Tensor | None = None

    def __call__(self, layer: int, q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor) -> Tensor:
        """What the watched one gathers."""
        if self._sums_L2 is None:
            self._sums_L2 = torch.zeros(self.layers, 2, device=q_NHK.device)
        out_NHK = self.attend(layer, q_NHK, k_NGK, v_NGK)
        self._sums_L2[layer, 0] = sum(x.sum(dtype=torch.float32) for x in (q_NHK, k_NGK, v_NGK))
        self._sums_L2[layer, 1] = out_NHK.sum(dtype=torch.float32)
        return out_NHK

    def reach(self, positions_N: Tensor) -> Tensor:
        """What the watched one says."""
        return self.attend.reach(positions_N)

    def join(self, total: Callable[[Tensor], Tensor]) -> None:
        """Add up what several processes saw in their heads, each of which must call this; `total` sums a tensor."""
        if self._sums_L2 is not None:
            total(self._sums_L2)

    def fault(self) -> str | None:
        """Where numbers stopped being finite, in words; None where none did. Layers count from 0, as in files."""
        if self._sums_L2 is None:
            return None
        broken = (~self._sums_L2.isfinite()).nonzero().tolist()
        if not broken:
            return None
        layer, after = broken[0]
        if after:
            return f"in the attention of layer {layer}"
        before = f"in what layer {layer - 1} wrote, or " if layer else ""
        return f"{before}in the queries, keys and values of layer {layer}"


def watched_hidden(
    decoder: Runs, ids_N: Tensor, positions_N: Tensor, attend: Attend, places_M: Tensor | None = None
) -> Tensor:
    """The hidden states after the final norm, [N, D], or [M, D] of some places; in float16 every layer is watched.

    Raises MachineError naming the layer at which numbers stopped being finite.
    """
    if decoder.dtype != torch.float16:
        return decoder.hidden(ids_N, positions_N, attend, places_M)
    watched = Watched(attend, decoder.config.layers)
    hidden_MD = decoder.hidden(ids_N, positions_N, watched, places_M)
    if fault := watched.fault():
        raise not_finite(fault, decoder.dtype)
    return hidden_MD


@no_grad
def find_fault(decoder: Runs, ids_N: Tensor, positions_N: Tensor, attend: Attend, hidden_ND: Tensor) -> str:
    """Where a pass whose results are no numbers went wrong, found by running it again; `hidden_ND` is what it gave."""
    watched = Watched(attend, decoder.config.layers)
    decoder.hidden(ids_N, positions_N, watched)
    if fault := watched.fault():
        return fault
    last = decoder.config.layers - 1
    return "in the logits" if hidden_ND.isfinite().all() else f"in what layer {last} wrote, or in the norm behind it"


def not_finite(where: str, dtype: torch.dtype) -> MachineError:
    """The error to raise for numbers that are none, and what helps."""
    name = str(dtype).removeprefix("torch.")
    cause = (
        "They passed the largest float16, 65,504: use bfloat16 or float32."
        if dtype == torch.float16
        else f"They passed what {name} holds, or the weights are damaged: check the folder that they came from."
    )
    return MachineError(f"The model's numbers stop being numbers (NaN or infinite) {where}. {cause}")
