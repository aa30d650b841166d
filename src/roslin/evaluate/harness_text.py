"""A tokenizer of Roslin's as the LM Evaluation Harness uses one: special tokens in a text are special."""

from collections.abc import Mapping, Sequence

import tokenizers

from roslin.evaluate.harness_pairs import Encoder, ending_blank
from roslin.tokens import Tokenizer, encode_all


class HarnessText:
    """Texts to ids and back for the harness's requests, which hold chat templates and keys as plain text."""

    def __init__(self, tokenizer: Tokenizer, *, add_bos_token: bool | None, prefix_token_id: int | None) -> None:
        """`add_bos_token` and `prefix_token_id` are HFLM's; None takes the tokenizer's own ways."""
        self._backend = tokenizer.marked_backend()
        bos_id = _bos_id(tokenizer, self._backend)
        self._start = [bos_id] if add_bos_token and bos_id is not None else tokenizer.start_ids
        if prefix_token_id is None:
            prefix_token_id = tokenizer.eos_id if bos_id is None else bos_id
        self.prefix_id = prefix_token_id
        added = self._backend.get_added_tokens_decoder().values()
        self.encoder = Encoder(
            texts=self._encode,
            prefix_id=self.prefix_id,
            prefix_text=self._backend.decode([self.prefix_id], skip_special_tokens=False),
            marks=add_bos_token is not False,
            ending_blank=ending_blank([token.content for token in added if token.special]),
        )

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids without the special tokens."""
        return str(self._backend.decode(list(ids), skip_special_tokens=True))

    def _encode(self, texts: Sequence[str], marks: bool) -> list[list[int]]:
        start = self._start if marks else []
        return [[*start, *ids] for ids in encode_all(self._backend, list(texts))]


def _bos_id(tokenizer: Tokenizer, backend: tokenizers.Tokenizer) -> int | None:
    token = tokenizer.settings.get("bos_token")
    content = token.get("content") if isinstance(token, Mapping) else token
    return backend.token_to_id(content) if isinstance(content, str) else None
