"""A network that says what it is told to, so that the ends of answers can be put anywhere."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from roslin.answer import Roslin
from roslin.model import Attend
from roslin.tokens import Tokenizer
from tiny_decoders import tiny_decoder


class Reciter:
    """Its next token is that of a script, by the number of tokens since the prompt's last key."""

    def __init__(self, vocabulary: int, key: int, script: Sequence[int]) -> None:
        self.config = replace(tiny_decoder("gpt_neox").config, vocab_rows=vocabulary)
        self.dtype, self.device = torch.float32, torch.device("cpu")
        self._key, self._script, self._start = key, script, 0

    def hidden(
        self, ids_N: torch.Tensor, positions_N: torch.Tensor, attend: Attend, places_M: torch.Tensor | None = None
    ) -> torch.Tensor:
        keys = (ids_N == self._key).nonzero()
        if len(keys) and bool((positions_N == 0).any()):  # in a prompt: what is computed on trial may have a key too
            self._start = int(positions_N[keys[-1]])
        hidden_N1 = (positions_N - self._start)[:, None].float()
        return hidden_N1 if places_M is None else hidden_N1[places_M]

    def logits(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        places = hidden_ND[:, 0].long().clamp(0, len(self._script) - 1)
        chosen = torch.tensor(self._script)[places]
        return 50.0 * torch.nn.functional.one_hot(chosen, self.config.vocab_rows)


@pytest.fixture
def reciting(base_folder: Path) -> Callable[[str], Roslin]:
    """Makes a model with Dolly's keys that answers everything with one text, then the end key."""
    tokenizer = Tokenizer.load(base_folder)
    tokenizer.add_keys()
    key = tokenizer.prompt_ids("x")[-1]
    return lambda text: Roslin(Reciter(tokenizer.size, key, [*tokenizer.encode(text), tokenizer.end_id]), tokenizer)
