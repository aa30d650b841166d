"""The text of an answer as its tokens come: whole characters, nothing after a stop, stripped as Dolly strips it."""

import re
from collections.abc import Sequence

from roslin.tokens import TextStream, Tokenizer

# What `prompt.find_answer` takes for the end key where it is plain text, and any beginning of it at a text's end.
_END = re.compile(r"#+\s*End")
_END_BEGUN = re.compile(r"#+\s*(?:E|En)?\Z")


class AnswerText:
    """Turns ids into the pieces that may be shown. Joined, the pieces are the answer's text, whatever the token splits.

    Of several stops the one that is complete first counts (of those, the longest), so that the result does not depend
    on how the text was split into tokens. Held back are an incomplete character, whatever may be the beginning of a
    stop, and blanks that may be the text's end.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = (), *, textual_end: bool = False) -> None:
        """`textual_end`: the end key is plain text for this model, not a token."""
        self._stream = TextStream(tokenizer)
        self._stops = tuple(stops)
        self._textual_end = textual_end
        self._held = ""
        self._blanks = ""
        self._shown: list[str] = []
        self.stopped = False

    @property
    def text(self) -> str:
        """All that was shown so far."""
        return "".join(self._shown)

    def push(self, token_id: int) -> str:
        """Add a token; the piece that may now be shown."""
        return self._add(self._stream.push(token_id), last=False)

    def finish(self) -> str:
        """No more tokens come: the piece that was held back and did not turn out to be a stop."""
        return self._add(self._stream.flush(), last=True)

    def _add(self, new: str, *, last: bool) -> str:
        if self.stopped:
            return ""
        self._held += new
        cut = self._first_stop()
        if cut is not None:
            self.stopped = True
            certain, self._held = self._held[:cut], ""
        else:
            keep = 0 if last else self._begun()
            certain, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return self._show(certain)

    def _first_stop(self) -> int | None:
        """Where the stop that is complete first begins."""
        places = [(self._held.find(stop), len(stop)) for stop in self._stops]
        found = [(place + length, place) for place, length in places if place >= 0]
        if self._textual_end and (match := _END.search(self._held)):
            found.append((match.end(), match.start()))
        return min(found)[1] if found else None

    def _begun(self) -> int:
        """Length of the longest end of the held text that a stop may begin with."""
        lengths = [_overlap(self._held, stop) for stop in self._stops]
        if self._textual_end and (match := _END_BEGUN.search(self._held)):
            lengths.append(len(match[0]))
        return max(lengths, default=0)

    def _show(self, text: str) -> str:
        if not self._shown:
            text = text.lstrip()
        text = self._blanks + text
        piece = text.rstrip()
        self._blanks = text[len(piece) :]
        if piece:
            self._shown.append(piece)
        return piece


def _overlap(text: str, stop: str) -> int:
    """Length of the longest proper beginning of `stop` that `text` ends with."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
