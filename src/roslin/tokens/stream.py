"""Ids to text while they come."""

from roslin.tokens.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"
"""What a decoder writes for bytes that are not (yet) a whole character."""


class TextStream:
    """Turns ids into text as they come, emitting whole characters only."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Start with nothing said."""
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown = ""

    def push(self, token_id: int) -> str:
        """Add one id; the text that became certain ("" while a character is still incomplete)."""
        self._ids.append(token_id)
        text = self._tokenizer.decode(self._ids)
        if text.endswith(REPLACEMENT):
            return ""
        new = text[len(self._shown) :]
        # What was just shown stays as left context of the next piece: some decoders treat a text's start specially.
        self._ids = self._ids[-1:]
        self._shown = self._tokenizer.decode(self._ids)
        return new

    def flush(self) -> str:
        """What is left when no more ids come, an incomplete character as U+FFFD."""
        new = self._tokenizer.decode(self._ids)[len(self._shown) :]
        self._ids, self._shown = [], ""
        return new
