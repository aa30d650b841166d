"""A verdict on a pair, and who can give one."""

from collections.abc import Mapping
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict

from roslin.evaluate.pairwise.pair import Pair

Choice = Literal["left", "right", "tie", "both_bad"]
"""Which answer is the better one; `both_bad` is a tie of two answers that are of no use."""

MIRRORED: Mapping[Choice, Choice] = {"left": "right", "right": "left", "tie": "tie", "both_bad": "both_bad"}
"""A choice as it reads when the two answers change places."""


class Verdict(BaseModel):
    """What a judge says of one pair of a sheet."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    item: int
    """The pair's number."""
    choice: Choice | None
    """None where the judge has not chosen (yet)."""
    remark: str = ""
    orders: tuple[Choice, Choice] | None = None
    """Of a judge asked twice: the choice when left was shown first, and when right was; both in the sheet's sides."""
    replies: tuple[str, ...] = ()
    """What such a judge wrote, word for word, malformed replies included."""

    @property
    def consistent(self) -> bool:
        """Whether the order of the answers made no difference to this judge; True where it was asked once."""
        return self.orders is None or self.orders[0] == self.orders[1]


class Judge(Protocol):
    """Anything that can judge a pair: a model behind an endpoint, or a function of your own."""

    def judge(self, item: Pair) -> Verdict:
        """The verdict on one pair; several threads may ask at once.

        Raises InputError, saying why, when it comes to none. `JudgeUnusable` says that it never will.
        """
        ...
