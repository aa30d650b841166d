"""What a decoder is made of: one configuration that covers the families."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd
from typing import TYPE_CHECKING, Any, Literal

from roslin.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from roslin.model.scaling import RopeScaling

Activation = Literal["gelu", "gelu_new", "silu"]
Norm = Literal["layer", "rms"]


@dataclass(frozen=True)
class ModelConfig:
    """The sizes and choices of one decoder.

    `width` is D, `heads` H, `kv_heads` G, `head_dim` K, `inner` F and `vocab_rows` V in the suffixes of tensor names.
    `vocab_rows` counts the rows of the embedding and the head, which may pass the tokenizer's size.
    `kv_heads` below `heads` are grouped: each pair of key and value serves `heads / kv_heads` queries.
    `rotary_dims` is how many of a head's first dimensions turn with the position: pairs are neighbours where
    `rotary_interleaved`, else a dimension of the first half with its like in the second; `rotary_scaling` stretches
    the positions beyond those that the model was trained on, and `positions` counts them all.
    `window` is how many tokens back attention sees, itself among them; None is all.
    `activation` is `gelu` (exact, by erf), `gelu_new` (by tanh) or `silu`; a `gated_mlp` multiplies it with a second
    product. A `shared_norm` feeds attention and MLP alike. `qk_norm` norms each head's query and key before they turn.
    """

    family: str
    width: int
    layers: int
    heads: int
    kv_heads: int
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
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    head_bias: bool
    tied_head: bool
    eos_id: int | None
    bos_id: int | None
    norm: Norm = "layer"
    gated_mlp: bool = False
    qk_norm: bool = False
    window: int | None = None
    rotary_scaling: RopeScaling | None = None

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

    def shared(self, count: int) -> ModelConfig:
        """The sizes of each of `count` shares of the model, each with some of the heads and of the MLP.

        Rows of embedding and head are rounded up. Raises UsageError where heads or the MLP do not come out even.
        """
        parts = {"heads": self.heads, "heads of keys and values": self.kv_heads, "numbers in the MLP": self.inner}
        if any(size % count for size in parts.values()):
            most = gcd(*parts.values())
            fitting = [str(n) for n in range(1, most + 1) if most % n == 0]
            sizes = ", ".join(f"{size:,} {name}" for name, size in parts.items())
            raise UsageError(
                f"{count} processes or GPUs cannot share this model evenly: it has {sizes}. "
                f"Take {' or '.join(fitting)}."
            )
        return replace(
            self,
            heads=self.heads // count,
            kv_heads=self.kv_heads // count,
            inner=self.inner // count,
            vocab_rows=-(-self.vocab_rows // count),
        )

    @property
    def query_rows(self) -> int:
        """How wide all queries are together, and what attention gives: H · K."""
        return self.heads * self.head_dim

    @property
    def key_rows(self) -> int:
        """How wide all keys are together, and all values: G · K."""
        return self.kv_heads * self.head_dim

    @property
    def qkv_rows(self) -> int:
        """Rows of the matrix that makes queries, keys and values."""
        return self.query_rows + 2 * self.key_rows

    @property
    def up_rows(self) -> int:
        """Rows of the MLP's first matrix: a gate's and the other product's, or those of the one."""
        return self.inner * (2 if self.gated_mlp else 1)

    @property
    def parameter_count(self) -> int:
        """How many numbers the weights hold; a tied head is counted once."""
        norm = self.width * (2 if self.norm == "layer" else 1)
        block = norm * (1 if self.shared_norm else 2) + (2 * self.head_dim if self.qk_norm else 0)
        block += self.width * (self.qkv_rows + self.query_rows + self.up_rows + self.inner)
        block += self.qkv_rows * self.qkv_bias + self.width * self.out_bias
        block += (self.up_rows + self.width) * self.mlp_bias
        embedding = self.vocab_rows * self.width
        head = (0 if self.tied_head else embedding) + (self.vocab_rows if self.head_bias else 0)
        return embedding + self.layers * block + norm + head
