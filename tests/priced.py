"""A network that computes nothing: it says what a script has, and moves a clock on by the price of each pass."""

from collections.abc import Callable, Sequence
from random import Random

import torch
from torch import Tensor

from roslin.model import Attend
from tiny_decoders import tiny_decoder

Price = Callable[[int], float]
"""Seconds that a pass of so many tokens takes."""
WORDS = 400
"""Tokens that scripts are made of. The one behind them stops an answer, and the next one is said where one is wrong."""
STOP, WRONG = WORDS, WORDS + 1
VOCABULARY = WORDS + 2


class Priced:
    """A network of which each pass takes its price, and which says at every place what `script` has, or is wrong."""

    def __init__(self, clock: list[float], price: Price, right: float = 1.0) -> None:
        self.config = tiny_decoder("gpt_neox", layers=1, vocab_rows=VOCABULARY, positions=1000).config
        self.dtype, self.device = torch.float32, torch.device("cpu")
        self.price, self.right = price, right
        """Of a pass by its tokens, and the probability that it says what the script has."""
        self.script: Sequence[int] = []
        self.rows: list[int] = []
        """Of every pass."""
        self._clock, self._chance = clock, Random(3)

    def hidden(self, ids_N: Tensor, positions_N: Tensor, attend: Attend, places_M: Tensor | None = None) -> Tensor:
        self.rows.append(len(ids_N))
        self._clock[0] += self.price(len(ids_N))
        places_N = positions_N if places_M is None else positions_N[places_M]
        return places_N[:, None].float()

    def logits(self, hidden_ND: Tensor) -> Tensor:
        logits_NV = torch.zeros(len(hidden_ND), VOCABULARY)
        said = [self._said(int(place)) for place in hidden_ND[:, 0].tolist()]
        logits_NV[torch.arange(len(said)), said] = 30.0
        return logits_NV

    def _said(self, place: int) -> int:
        known = place < len(self.script) and self._chance.random() < self.right
        return self.script[place] if known else WRONG


def linear(one: float, more: float) -> Price:
    """So many seconds for a pass of one token, and so many for each further one."""
    return lambda tokens: one + more * (tokens - 1)


def disturbed(price: Price, seed: int = 0) -> Price:
    """The same with noise: up to twice as much, and a long stall now and then."""
    chance = Random(seed)
    return lambda tokens: price(tokens) * (1 + chance.random()) + (20 if chance.random() < 0.005 else 0)


def copying(chance: Random, prompt: Sequence[int], new: int, share: float) -> list[int]:
    """An answer of so many tokens that copies such a share of its passages from the prompt."""
    answer: list[int] = []
    while len(answer) < new:
        length = chance.randint(4, 12)
        start = chance.randrange(len(prompt) - length)
        copies = chance.random() < share
        answer += prompt[start : start + length] if copies else [chance.randrange(WORDS) for _ in range(length)]
    return answer[:new]
