"""What a decoder is made of: one configuration that covers the families."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

Activation = Literal["gelu", "gelu_new"]


@dataclass(frozen=True)
class ModelConfig:
    """The sizes and choices of one decoder.

    `width` is D, `heads` H, `head_dim` K, `inner` F and `vocab_rows` V in the suffixes of tensor names.
    `vocab_rows` counts the rows of the embedding and the head, which may pass the tokenizer's size.
    `rotary_dims` is how many of a head's first dimensions turn with the position: pairs are neighbours where
    `rotary_interleaved`, else a dimension of the first half with its like in the second.
    `activation` is `gelu` (exact, by erf) or `gelu_new` (by tanh). A `shared_norm` feeds attention and MLP alike.
    """

    family: str
    width: int
    layers: int
    heads: int
    head_dim: int
    inner: int
    vocab_rows: int
    positions: int
    rotary_dims: int
    rotary_base: float
    rotary_interleaved: bool
    activation: Activation
    norm_eps: float
    shared_norm: bool
    parallel_residual: bool
    attention_bias: bool
    head_bias: bool
    tied_head: bool
    eos_id: int | None
    bos_id: int | None

    @classmethod
    def from_hf(cls, values: Mapping[str, Any], source: str = "config.json") -> ModelConfig:
        """Read the values of a transformers `config.json`.

        Raises InputError, naming `source` and every key that is missing, wrong or not supported.
        """
        from roslin.model.families import read_config

        return read_config(values, source)

    def to_hf(self, dtype: torch.dtype) -> dict[str, Any]:
        """The values of a `config.json` that transformers 4 and 5 read alike, for weights stored as `dtype`."""
        from roslin.model.families import write_config

        return write_config(self, dtype)

    @property
    def parameter_count(self) -> int:
        """How many numbers the weights hold; a tied head is counted once."""
        attention = self.heads * self.head_dim
        norms = (1 if self.shared_norm else 2) * 2 * self.width
        block = norms + 4 * attention * self.width + 2 * self.inner * self.width + self.inner + self.width
        if self.attention_bias:
            block += 3 * attention + self.width
        embedding = self.vocab_rows * self.width
        head = (0 if self.tied_head else embedding) + (self.vocab_rows if self.head_bias else 0)
        return embedding + self.layers * block + 2 * self.width + head
