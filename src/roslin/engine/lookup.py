"""A guess at what a sequence goes on with: the tokens that followed where its latest ones stood before."""

from collections.abc import Iterator, Sequence

LONGEST, SHORTEST = 5, 2
"""Tokens by which an earlier place is looked up: the most that are found."""
_CLASSES = 5
"""Of matches, by the bit length of their tokens: 2 to 3, 4 to 7, 8 to 15, and longer ones; the first is empty."""
_WEIGHT = 8
"""Guesses that the figure expected beforehand counts for beside a request's own."""


class Lookup:
    """Follows one sequence as it grows, a constant amount of work a token, and counts how often its guesses were right.

    Every token of the answer is guessed, whether or not anybody acts upon it.
    """

    def __init__(self, prompt: int) -> None:
        """The first `prompt` tokens are the prompt's, of which none is guessed."""
        self._prompt = prompt
        self._read = 0
        self._follows: dict[tuple[int, ...], int] = {}
        """The place behind the latest place of so many tokens."""
        self._source: int | None = None
        self._matched = 0
        """How many tokens before the source are those that the sequence ends with, as far as that is known."""
        self._right = [0] * _CLASSES
        self._guessed = [0] * _CLASSES

    def read(self, ids: Sequence[int]) -> None:
        """Take in what the sequence has got since this was last called; `ids` are all it has."""
        for place in range(self._read, len(ids)):
            right = self._source is not None and ids[self._source] == ids[place]
            if self._source is not None:
                self._count(right)
            for length in range(SHORTEST, min(LONGEST, place) + 1):
                self._follows[tuple(ids[place - length : place])] = place
            if place >= self._prompt - 1:
                self._move(ids, place + 1, right)
        self._read = len(ids)

    def guess(self, ids: Sequence[int], count: int) -> list[int]:
        """The next `count` ids, or none; `ids` are all there are. What follows its own copy is taken to repeat."""
        if self._source is None:
            return []
        period = len(ids) - self._source
        return [ids[self._source + step % period] for step in range(count)]

    def chances(self) -> Iterator[float]:
        """How likely each guessed token and all before it are right: none without a guess, else without an end."""
        chance, matched = 1.0, self._matched
        while self._source is not None:
            kind = _kind(matched)
            # Dolly's records that copy (closed question answering, extraction, summarization) come close to this.
            expected = matched / (matched + 2)
            chance *= (self._right[kind] + _WEIGHT * expected) / (self._guessed[kind] + _WEIGHT)
            yield chance
            matched += 1

    def _count(self, right: bool) -> None:
        self._guessed[_kind(self._matched)] += 1
        self._right[_kind(self._matched)] += right

    def _move(self, ids: Sequence[int], end: int, right: bool) -> None:
        """Find the source for what follows the first `end` tokens."""
        if right and self._source is not None:
            self._source, self._matched = self._source + 1, self._matched + 1
            return
        self._source = None
        for length in range(min(LONGEST, end), SHORTEST - 1, -1):
            self._source, self._matched = self._follows.get(tuple(ids[end - length : end])), length
            if self._source is not None:
                return


def _kind(matched: int) -> int:
    return min(matched.bit_length(), _CLASSES) - 1
