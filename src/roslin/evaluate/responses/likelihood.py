"""How likely a model finds the responses that people wrote."""

from collections.abc import Sequence
from dataclasses import dataclass

from roslin import prompt
from roslin.answer import DollyPrompts, Roslin
from roslin.engine import ScoreRow

_BEFORE_END = "\n\n"
"""What Dolly's form puts between a response and the end key."""


@dataclass(frozen=True)
class Likelihood:
    """Negative log-likelihood of one response, in nats."""

    nll: float
    """Of all that tuning takes its loss on: the response, its end key, and what stands between."""
    tokens: int
    own_nll: float
    """Of the tokens that hold a character of the response itself."""
    own_tokens: int
    size: int
    """UTF-8 bytes of the response."""


@dataclass(frozen=True)
class ScoredRow:
    """A record's prompt and response as ids, and how many of the scored ones are the response's own."""

    row: ScoreRow
    own_tokens: int
    size: int

    @classmethod
    def of(cls, model: Roslin, instruction: str, context: str | None, response: str) -> "ScoredRow":
        """Encode a record as `model` is asked and tuned."""
        ids, start = model.prompts.scored_ids(instruction, context, response)
        closing = closing_tokens(model, ids[start:])
        return cls(ScoreRow(ids, start), len(ids) - start - closing, len(response.encode()))

    def likelihood(self, logprobs: Sequence[float]) -> Likelihood:
        """The likelihood, from the log-probability of each scored token."""
        own = logprobs[: self.own_tokens]
        return Likelihood(-sum(logprobs), len(logprobs), -sum(own), self.own_tokens, self.size)


def closing_tokens(model: Roslin, scored: Sequence[int]) -> int:
    """How many of a response's last tokens hold nothing of it: the end, and in Dolly's form the newlines before it.

    A token that joins the response's last character with a newline is the response's own.
    """
    decode = model.tokenizer.decode
    count = 1
    if model.prompts.textual_end:
        while prompt.END_KEY not in decode(scored[-count:]):
            count += 1
    left = _BEFORE_END if isinstance(model.prompts, DollyPrompts) else ""
    while left and count < len(scored) - 1 and left.endswith(blank := decode([scored[-count - 1]])) and blank:
        left = left.removesuffix(blank)
        count += 1
    return count
