"""SentencePiece's BPE, as GGUF files have it: scores instead of merges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tokenizers
from tokenizers import decoders, models, normalizers

if TYPE_CHECKING:
    from collections.abc import Mapping

SPACE = "▁"


def sentencepiece_backend(
    vocabulary: dict[str, int], scores: Mapping[str, float], unknown: str, prefix: bool
) -> tokenizers.Tokenizer:
    """A tokenizer that merges as SentencePiece does. `scores` are those of the tokens that merging may make.

    With `prefix`, a text begins with a space, whether or not it has one: SentencePiece's `add_dummy_prefix`.
    """
    model = models.BPE(vocab=vocabulary, merges=_merges(scores), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    backend = tokenizers.Tokenizer(model)
    spaces = normalizers.Replace(" ", SPACE)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), spaces]) if prefix else spaces
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    steps += [decoders.Strip(" ", left=1)] if prefix else []
    backend.decoder = decoders.Sequence(steps)
    return backend


def _merges(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Every pair of tokens that makes a token: those with the best scores first, as SentencePiece picks them."""
    pairs = [
        (token[:cut], token[cut:])
        for token in scores
        for cut in range(1, len(token))
        if token[:cut] in scores and token[cut:] in scores
    ]
    return sorted(pairs, key=lambda pair: (-scores[pair[0] + pair[1]], -len(pair[0]), -len(pair[1])))
