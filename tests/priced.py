"""Networks that compute nothing: they say what a script has, and move a clock on by the price of each pass."""

from collections.abc import Callable, Sequence
from random import Random

import torch
from torch import Tensor

from roslin.model import Attend
from tiny_decoders import tiny_decoder

Price = Callable[[int], float]
"""Seconds that a pass of so many tokens takes."""
VOCABULARY = 4000
WRONG = VOCABULARY - 1
"""What no script says."""


class Priced:
    """A network of which each pass takes its price, and which says at every place what `script` has, or is wrong."""

    def __init__(self, clock: list[float], price: Price, right: float = 1.0) -> None:
        self.config = tiny_decoder("gpt_neox", layers=1, vocab_rows=VOCABULARY, positions=4000).config
        self.dtype, self.device = torch.float32, torch.device("cpu")
        self.script: Sequence[int] = []
        self.rows: list[int] = []
        """Of every pass."""
        self._clock, self._price, self._right, self._chance = clock, price, right, Random(3)

    def hidden(self, ids_N: Tensor, positions_N: Tensor, attend: Attend, places_M: Tensor | None = None) -> Tensor:
        self.rows.append(len(ids_N))
        self._clock[0] += self._price(len(ids_N))
        places_N = positions_N if places_M is None else positions_N[places_M]
        return places_N[:, None].float()

    def logits(self, hidden_ND: Tensor) -> Tensor:
        logits_NV = torch.zeros(len(hidden_ND), VOCABULARY)
        said = [self._said(int(place)) for place in hidden_ND[:, 0].tolist()]
        logits_NV[torch.arange(len(said)), said] = 30.0
        return logits_NV

    def _said(self, place: int) -> int:
        return self.script[place % len(self.script)] if self._chance.random() < self._right else WRONG


def linear(seconds: float, row: float) -> Price:
    """So much for a pass of one token, and so much for each further one."""
    return lambda rows: seconds + row * (rows - 1)
