"""One record as a model was judged by it."""

from dataclasses import dataclass
from typing import Any

from roslin.evaluate.responses.likelihood import Likelihood
from roslin.evaluate.responses.traits import Traits
from roslin.records.record import Record

NO_CATEGORY = "none"


@dataclass(frozen=True)
class Judged:
    """A record, how likely its response is to the model, and what the model answers itself."""

    number: int
    """The record's place in the list that was given, from 1."""
    record: Record
    likelihood: Likelihood
    answer: str
    stopped: bool
    """Whether the answer ended by itself, at the end key (or the model's end of text), within the tokens allowed."""
    traits: Traits
    reference: Traits
    """The same of the record's own response."""
    rouge_l: float

    @property
    def category(self) -> str:
        """The record's category; `none` where it has none."""
        return self.record.category or NO_CATEGORY

    @property
    def faults(self) -> list[str]:
        """What can be seen to be wrong with the answer, a few words each."""
        return [*self.traits.faults, *([] if self.stopped else ["did not stop"])]

    def as_dict(self) -> dict[str, Any]:
        """Numbers and answer as JSON has them; the record by its number."""
        return {
            "number": self.number,
            "category": self.category,
            "nll": self.likelihood.nll,
            "tokens": self.likelihood.tokens,
            "nll_without_end": self.likelihood.own_nll,
            "tokens_without_end": self.likelihood.own_tokens,
            "bytes": self.likelihood.size,
            "rouge_l": self.rouge_l,
            "stopped": self.stopped,
            "answer_tokens": self.traits.tokens,
            "faults": self.faults,
            "answer": self.answer,
        }


@dataclass(frozen=True)
class LeftOut:
    """A record that the model has too few positions for."""

    number: int
    category: str
    reason: str

    def __str__(self) -> str:
        """The record's number and why it was left out."""
        return f"record {self.number}: {self.reason}"
