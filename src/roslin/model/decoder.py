"""The decoder in plain torch: the reference that every fast path must equal.

It works on a flat stream of N tokens without a batch axis or padding. Packed training rows, padded batches with the
padding taken out, and one decode step of many sequences are all the same to it: `attend` decides who sees whom.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roslin.model.rotary import Rotary, Turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from roslin.model.attention import Attend
    from roslin.model.config import ModelConfig


class Block(nn.Module):
    """One layer: attention and MLP, beside each other or one after the other.

    `qkv` is one matrix [(H + 2 G)·K, D] whose rows are all queries, then all keys, then all values. `up` is the MLP's
    first matrix [F, D]; where the MLP is gated, the gate's rows stand before it, [2 F, D]. A `runner` takes the forward
    pass over where gradients are wanted.
    """

    runner: Callable[[Block, Tensor, Turns, Attend], Tensor] | None = None

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.norm1 = _norm(config)
        self.norm2 = None if config.shared_norm else _norm(config)
        self.qkv = nn.Linear(config.width, config.qkv_rows, bias=config.qkv_bias)
        self.q_norm = nn.RMSNorm(config.head_dim, eps=config.norm_eps) if config.qk_norm else None
        self.k_norm = nn.RMSNorm(config.head_dim, eps=config.norm_eps) if config.qk_norm else None
        self.out = nn.Linear(config.query_rows, config.width, bias=config.out_bias)
        self.up = nn.Linear(config.width, config.up_rows, bias=config.mlp_bias)
        self.down = nn.Linear(config.inner, config.width, bias=config.mlp_bias)
        self._head_dim = config.head_dim
        self._heads = (config.heads, config.kv_heads, config.kv_heads)
        self._parallel = config.parallel_residual
        self._activate = activation_of(config)

    def forward(self, x_ND: Tensor, turns: Turns, attend: Attend) -> Tensor:
        """The stream after this layer, [N, D]."""
        if self.runner is not None and torch.is_grad_enabled():
            return self.runner(self, x_ND, turns, attend)
        return self.run(x_ND, turns, attend)

    def run(self, x_ND: Tensor, turns: Turns, attend: Attend) -> Tensor:
        """The same in plain torch, whatever runner there is."""
        normed_ND = self.norm1(x_ND)
        attended_ND = self._attention(normed_ND, turns, attend)
        if not self._parallel:
            x_ND = x_ND + attended_ND
            return x_ND + self._mlp(self._second_norm(x_ND, normed_ND))
        return x_ND + attended_ND + self._mlp(self._second_norm(x_ND, normed_ND))

    def _attention(self, normed_ND: Tensor, turns: Turns, attend: Attend) -> Tensor:
        heads_NGK = self.qkv(normed_ND).view(len(normed_ND), sum(self._heads), self._head_dim)
        q_NHK, k_NGK, v_NGK = turns.apply(self.normed_heads(heads_NGK)).split_with_sizes(self._heads, 1)
        out_ND: Tensor = self.out(attend(self.layer, q_NHK, k_NGK, v_NGK).flatten(1))
        return out_ND

    def normed_heads(self, heads_NGK: Tensor) -> Tensor:
        """The heads with queries and keys normed, each by itself, where the model does so."""
        if self.q_norm is None or self.k_norm is None:
            return heads_NGK
        q_NHK, k_NGK, v_NGK = heads_NGK.split_with_sizes(self._heads, 1)
        return torch.cat((self.q_norm(q_NHK), self.k_norm(k_NGK), v_NGK), 1)

    def _second_norm(self, x_ND: Tensor, normed_ND: Tensor) -> Tensor:
        return normed_ND if self.norm2 is None else self.norm2(x_ND)

    def _mlp(self, normed_ND: Tensor) -> Tensor:
        out_ND: Tensor = self.down(self._activate(self.up(normed_ND)))
        return out_ND


def _norm(config: ModelConfig) -> nn.Module:
    kind = nn.RMSNorm if config.norm == "rms" else nn.LayerNorm
    return kind(config.width, eps=config.norm_eps)


def activation_of(config: ModelConfig) -> Callable[[Tensor], Tensor]:
    """What stands between the MLP's two matrices: [N, F] of [N, F], or of [N, 2 F] where a gate stands before it."""
    plain: Callable[[Tensor], Tensor] = F.silu
    if config.activation != "silu":
        plain = partial(F.gelu, approximate="tanh" if config.activation == "gelu_new" else "none")
    return partial(_gated, plain) if config.gated_mlp else plain


def _gated(activate: Callable[[Tensor], Tensor], up_N2F: Tensor) -> Tensor:
    gate_NF, up_NF = up_N2F.chunk(2, -1)
    return activate(gate_NF) * up_NF


KERNELS_KEPT = "128"


def keep_few_kernels() -> None:
    """Bound what oneDNN and torch's bridge to it keep for matrices of shapes they have met, before they meet any.

    They keep 1,024 each unless told otherwise, megabytes a shape, and rows of a packed run all differ in length.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNELS_KEPT)
    os.environ.setdefault("LRU_CACHE_CAPACITY", KERNELS_KEPT)


class Decoder(nn.Module):
    """Token ids to hidden states to logits."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        keep_few_kernels()
        self.config = config
        # Not torch's default, normal_: on the meta device, where loading builds the decoder, it imports for a second.
        rows_VD = torch.empty(config.vocab_rows, config.width).uniform_(-1, 1)
        self.embedding = nn.Embedding(config.vocab_rows, config.width, _weight=rows_VD)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = _norm(config)
        self.head = nn.Linear(config.width, config.vocab_rows, bias=config.head_bias)
        self._rotary = Rotary(config)
        self.tie()

    def tie(self) -> None:
        """Make the head use the embedding's rows, where the configuration says so."""
        if self.config.tied_head:
            self.head.weight = self.embedding.weight

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the arithmetic, which is that of the weights that are not quantised."""
        return next(self.norm.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.norm.parameters()).device

    def hidden(self, ids_N: Tensor, positions_N: Tensor, attend: Attend, places_M: Tensor | None = None) -> Tensor:
        """The hidden states after the final norm, [N, D], or [M, D] of some places alone.

        Positions must be below the model's.
        """
        x_ND = self.embedding(ids_N)
        turns = self._rotary.turns(positions_N, x_ND.dtype, attend)
        for block in self.blocks:
            x_ND = block(x_ND, turns, attend)
        normed_ND: Tensor = self.norm(x_ND if places_M is None else x_ND[places_M])
        return normed_ND

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """The logits of every row of the head, [N, V]."""
        logits_NV: Tensor = self.head(hidden_ND)
        return logits_NV

    def forward(self, ids_N: Tensor, positions_N: Tensor, attend: Attend) -> Tensor:
        """Ids straight to logits, [N, V]."""
        return self.logits(self.hidden(ids_N, positions_N, attend))
