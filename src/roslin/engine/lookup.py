"""A guess at what a sequence goes on with: the tokens that followed where its latest ones stood before."""

from collections.abc import Iterator, Sequence

LONGEST, SHORTEST = 5, 2
"""Tokens by which an earlier place is looked up: the most that are found."""
_CLASSES = 5
"""Of matches, by the bit length of their tokens: 2 to 3, 4 to 7, 8 to 15, and longer ones; the first is empty."""
_WEIGHT = 8
"""Guesses that what was expected beforehand counts for beside those that were seen."""


class Matches:
    """How often what followed a match was right, by the length of the match."""

    def __init__(self, fading: float = 1.0) -> None:
        """With each match seen the earlier ones of its class count so much less."""
        self._fading = fading
        self._right, self._seen = [0.0] * _CLASSES, [0.0] * _CLASSES

    def saw(self, matched: int, *, right: bool) -> None:
        """What followed a match of so many tokens was right, or not."""
        kind = _kind(matched)
        self._right[kind] = self._right[kind] * self._fading + right
        self._seen[kind] = self._seen[kind] * self._fading + 1

    def rate(self, matched: int, expected: float) -> float:
        """How likely what follows a match of so many tokens is right, if that was `expected` beforehand."""
        kind = _kind(matched)
        return (self._right[kind] + _WEIGHT * expected) / (self._seen[kind] + _WEIGHT)


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
        self._own = Matches()

    def read(self, ids: Sequence[int], others: Matches | None = None) -> None:
        """Take in what the sequence has got since this was last called; `ids` are all it has.

        `others` hears too how often guesses were right.
        """
        for place in range(self._read, len(ids)):
            right = self._source is not None and ids[self._source] == ids[place]
            for matches in (self._own, others) if self._source is not None else ():
                if matches is not None:
                    matches.saw(self._matched, right=right)
            for length in range(SHORTEST, min(LONGEST, place) + 1):
                self._follows[tuple(ids[place - length : place])] = place
            if place >= self._prompt - 1:
                self._move(ids, place + 1, right)
        self._read = len(ids)

    def guess(self, ids: Sequence[int], count: int) -> list[int]:
        """The next `count` ids, or none; `ids` are all there are, none of them unread by this.

        What follows its own copy is taken to repeat.
        """
        if self._source is None or self._read < len(ids):
            return []
        period = len(ids) - self._source
        return [ids[self._source + step % period] for step in range(count)]

    def chances(self, others: Matches | None = None) -> Iterator[float]:
        """How likely each guessed token and all before it are right: none without a guess, else without an end.

        By what `others` have seen before, as long as the sequence itself has shown little.
        """
        chance, matched = 1.0, self._matched
        while self._source is not None:
            # Dolly's records that copy (closed question answering, extraction, summarization) come close to this.
            expected = matched / (matched + 2)
            if others is not None:
                expected = others.rate(matched, expected)
            chance *= self._own.rate(matched, expected)
            yield chance
            matched += 1

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
