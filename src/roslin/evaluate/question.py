"""A multiple-choice question as it is put to a model: pairs of context and continuation, and the right one."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import orjson


@dataclass(frozen=True)
class Choice:
    """What a model is shown, and what it is asked the log-likelihood of."""

    context: str
    continuation: str
    characters: int
    """What acc_norm divides the log-likelihood by: the length of the choice as the data writes it."""


@dataclass(frozen=True)
class Question:
    """A question of a benchmark; `gold` is the place of its right choice."""

    choices: tuple[Choice, ...]
    gold: int
    cluster: str = ""
    """Questions that share one (of the same passage, say) are not independent; empty where each stands alone."""

    @cached_property
    def key(self) -> str:
        """A hash of all that a model is shown and judged by: the same question has the same key in every run."""
        shown = [[choice.context, choice.continuation, choice.characters] for choice in self.choices]
        return hashlib.sha256(orjson.dumps([shown, self.gold])).hexdigest()[:32]
