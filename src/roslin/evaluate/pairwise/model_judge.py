"""A model as a judge: asked about each pair in both orders, so that a liking for the first answer decides nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from roslin.errors import InputError
from roslin.evaluate.pairwise.endpoint import Message
from roslin.evaluate.pairwise.pair import Pair
from roslin.evaluate.pairwise.template import DEFAULT, REMINDER, fill, read_verdict
from roslin.evaluate.pairwise.verdict import MIRRORED, Choice, Verdict

Chat = Callable[[Sequence[Message]], str]
"""Messages of a chat to its reply: `Endpoint.chat`, or anything else that replies."""


@dataclass(frozen=True)
class ModelJudge:
    """Judges by asking a model. A reply without a clear verdict is asked for again; none is ever made up."""

    chat: Chat
    template: str = DEFAULT
    attempts: int = 3
    """How often to ask for a verdict in one order before giving the pair up."""

    def judge(self, item: Pair) -> Verdict:
        """The verdict of both orders, or a tie where they differ. Raises InputError when one order brings none."""
        replies: list[str] = []
        as_it_stands = self._ask(item, item.left, item.right, replies)
        turned = MIRRORED[self._ask(item, item.right, item.left, replies)]
        choice: Choice = as_it_stands if as_it_stands == turned else "tie"
        return Verdict(item=item.number, choice=choice, orders=(as_it_stands, turned), replies=tuple(replies))

    def _ask(self, item: Pair, first: str, second: str, replies: list[str]) -> Choice:
        """The choice in one order, left being the first; every reply is added to `replies`."""
        question = fill(
            self.template,
            instruction=item.instruction,
            context=item.context,
            first=first,
            second=second,
            reference=item.reference,
        )
        messages: list[Message] = [{"role": "user", "content": question}]
        for _ in range(self.attempts):
            reply = self.chat(messages)
            replies.append(reply)
            choice = read_verdict(reply)
            if choice:
                return choice
            messages = [messages[0], *_again(reply)]
        raise InputError(f"{self.attempts} replies without a clear verdict; the last one ends {_end(replies[-1])!r}")


def _again(reply: str) -> list[Message]:
    """What goes below the question to ask for a verdict once more; some endpoints take no empty message."""
    if not reply.strip():
        return []
    return [{"role": "assistant", "content": reply}, {"role": "user", "content": REMINDER}]


def _end(reply: str, characters: int = 80) -> str:
    text = " ".join(reply.split())
    return text if len(text) <= characters else f"…{text[-characters:]}"
