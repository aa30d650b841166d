"""What is exported: a model's weights, its tokenizer, and the notices that go wherever it goes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from roslin.errors import InputError
from roslin.model import load_config, load_decoder, text_source
from roslin.model.adapter import base_of, is_adapter, load_adapted
from roslin.model.grad_mode import no_grad
from roslin.tokens import Tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from roslin.model import Decoder, ModelConfig

NOTICES = ("NOTICE*", "LICENSE*", "LICENCE*")


@dataclass(frozen=True)
class Source:
    """A model as it lies on disk. `tokens` is how many ids its tokenizer has, holes among them counted."""

    path: Path
    config: ModelConfig
    tokenizer: Tokenizer
    tokens: int

    @classmethod
    def open(cls, path: Path) -> Source:
        """Read all but the weights. Raises InputError for what is missing, and for a token that has no row."""
        config, tokenizer = load_config(path), Tokenizer.load(text_source(path))
        tokens = max(tokenizer.marked_backend().get_vocab().values()) + 1
        if tokens > config.vocab_rows:
            raise InputError(
                f"{path}: the tokenizer has {tokens:,} tokens, and the model rows for {config.vocab_rows:,}: the last "
                "ones have no embedding. The tokenizer is another model's, or the model lost its added tokens."
            )
        return cls(path, config, tokenizer, tokens)

    @property
    def is_adapter(self) -> bool:
        """Whether it is an adapter beside a base."""
        return is_adapter(self.path)

    def load(self, dtype: torch.dtype | None = None) -> Decoder:
        """The weights, those of an adapter merged; `dtype` None keeps the files' own."""
        return load_decoder(self.path, dtype=dtype)

    def load_reference(self) -> Decoder:
        """What an export is compared with, in fp32; an adapter stands beside its base, and is not merged into it."""
        if self.is_adapter:
            return load_adapted(self.path, dtype=torch.float32, merged=False)
        return load_decoder(self.path, dtype=torch.float32)

    def copy_notices(self, folder: Path) -> None:
        """Copy licences and attributions of the model, and of an adapter's base."""
        for place in reversed(self._folders()):
            for notice in (found for name in NOTICES for found in place.glob(name) if found.is_file()):
                shutil.copyfile(notice, folder / notice.name)

    def beside(self, name: str) -> Path | None:
        """A file of the model's folder, or of an adapter's base where the adapter's has none."""
        return next((place / name for place in self._folders() if (place / name).is_file()), None)

    def _folders(self) -> list[Path]:
        """The model's folder, then that of an adapter's base."""
        places = [self.path, base_of(self.path)] if self.is_adapter else [self.path]
        return [place if place.is_dir() else place.parent for place in places]


@no_grad
def trim_rows(decoder: Decoder, tokens: int) -> None:
    """Drop the rows of embedding and head that belong to no token, in place: what is left are views of the old ones."""
    if tokens >= decoder.config.vocab_rows:
        return
    decoder.embedding.weight = _first(decoder.embedding.weight, tokens)
    if not decoder.config.tied_head:
        decoder.head.weight = _first(decoder.head.weight, tokens)
    if decoder.config.head_bias:
        decoder.head.bias = _first(decoder.head.bias, tokens)
    decoder.embedding.num_embeddings = decoder.head.out_features = tokens
    decoder.config = replace(decoder.config, vocab_rows=tokens)
    decoder.tie()


def _first(rows: Tensor, count: int) -> nn.Parameter:
    return nn.Parameter(rows.detach()[:count], requires_grad=rows.requires_grad)
