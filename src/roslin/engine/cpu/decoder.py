"""A decoder for answering on a CPU by kernels of our own: as few calls a layer as can be.

A layer whose attention and MLP stand beside each other (GPT-NeoX, GPT-J) is two sums of products. The first reads the
norms of the residual stream into queries, keys, values, which turn with their positions, and into the MLP's first half
with its activation. The second reads attention and MLP together back into the stream. Where the one follows the other
(llama) there are four.
Numbers between the products are fp32 whatever the weights are, and what a row comes to is the same to the bit
whatever rows are beside it; but where the decoder computes in bfloat16, many rows at once are rounded to that.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from roslin.engine.cpu.many import Run, has_fast_bfloat16, rounding, rounds
from roslin.engine.cpu.matrix import PackedMatrix, Preparation, Products, Source, Sum, Turning
from roslin.engine.cpu.memory import Room
from roslin.engine.heads import HeadAttention
from roslin.model import Block
from roslin.model.quantised_linear import QuantisedLinear
from roslin.model.rotary import Rotary

if TYPE_CHECKING:
    from collections.abc import Callable

    from roslin.model import Attend, Decoder, ModelConfig
    from roslin.model.rotary import Turns

REPEATED = 64
"""Tokens from which it pays to look for those that are there several times."""
TAKEN = (torch.float32, torch.bfloat16)
"""What the decoder's plain numbers may be."""


class KernelDecoder:
    """Equals the decoder it was made from; its weights can no longer change."""

    dtype = torch.float32
    """That of the arithmetic between the products."""
    device = torch.device("cpu")

    def __init__(self, decoder: Decoder) -> None:
        """Take `decoder` apart, layer by layer, so that its weights and the packed ones are never both whole."""
        self.config: ModelConfig = decoder.config
        self.weights = decoder.dtype
        """The dtype of the numbers it was made of, or of those in few bits when they are read."""
        self._embedding = decoder.embedding
        self._norm = Preparation(_source(self.config, decoder.norm))
        self._rotary = Rotary(self.config)
        self.rounds_many = decoder.dtype == torch.bfloat16 and (rounds() or has_fast_bfloat16())
        """Whether many rows are rounded to bfloat16, which `logprobs` does not do."""
        run = rounding if self.rounds_many else _as_they_are
        kind = _Parallel if self.config.parallel_residual else _Sequential
        room = Room()
        self._layers: list[_Parallel | _Sequential] = []
        for layer, block in enumerate(decoder.blocks):
            assert isinstance(block, Block)
            self._layers.append(kind(self.config, block, run, room))
            decoder.blocks[layer] = nn.Identity()
        head = Products([Source(self.config.width)], [Sum(_packed(decoder.head, room), 0, decoder.head.bias)])
        self._head, self.logprobs = run(head), head.logprobs

    def hidden(self, ids_N: Tensor, positions_N: Tensor, attend: Attend, places_M: Tensor | None = None) -> Tensor:
        """The hidden states after the final norm, [N, D], or [M, D] of some places alone."""
        turns = self._rotary.turns(positions_N, torch.float32, attend)
        first, *others = self._layers
        x_ND = self._behind_first(first, ids_N, turns, attend)
        for layer in others[:-1]:
            x_ND = layer(x_ND, turns, attend)
        for last in others[-1:]:
            if places_M is not None:
                return self._norm(last.at(places_M, x_ND, turns, attend))
            x_ND = last(x_ND, turns, attend)
        return self._norm(x_ND if places_M is None else x_ND[places_M])

    def _behind_first(self, layer: _Parallel | _Sequential, ids_N: Tensor, turns: Turns, attend: Attend) -> Tensor:
        """The stream behind the first layer, [N, D]; what that makes of a token by itself is made once for each id."""
        if len(ids_N) < REPEATED:
            return layer(self._embedding(ids_N).float(), turns, attend)
        ids_U, rows_N = torch.unique(ids_N, return_inverse=True)
        return layer.of_repeated(self._embedding(ids_U).float(), rows_N, turns, attend)

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """The logits of every row of the head, [N, V]."""
        return self._head(hidden_ND.contiguous())[0]


class _Parallel:
    """A layer whose attention and MLP stand beside each other: two calls."""

    def __init__(self, config: ModelConfig, block: Block, run: Callable[[Products], Run], room: Room) -> None:
        sources = [_source(config, block.norm1)]
        if block.norm2 is not None:
            sources.append(_source(config, block.norm2))
        activation = None if config.gated_mlp else config.activation
        qkv, up = (
            Sum(_packed(block.qkv, room), 0, block.qkv.bias),
            Sum(_packed(block.up, room), 0, block.up.bias, activation),
        )
        inner = Source(config.inner, gate=config.activation if config.gated_mlp else None)
        attended = Source(config.query_rows)
        down = Sum(_packed(block.down, room), 0, _both(block.out.bias, block.down.bias))
        out = Sum(_packed(block.out, room), 0)
        self._sources = len(sources)
        first = Products(sources, [qkv, replace(up, source=len(sources) - 1)], _turning(config))
        self._first, self._turn = run(first), first.turn
        self._last = run(Products([inner, attended], [replace(down, other=out.matrix, other_source=1)]))
        self._qkv, self._up = run(Products(sources[:1], [qkv], _turning(config))), run(Products(sources[-1:], [up]))
        self._down, self._out = run(Products([inner], [down])), run(Products([attended], [out]))
        self._attention = _attention(config, block)

    def __call__(self, x_ND: Tensor, turns: Turns, attend: Attend) -> Tensor:
        qkv_NA, up_NF = self._first(*[x_ND] * self._sources, turns=(turns.cos, turns.sin))
        return self._last(up_NF, self._attention(qkv_NA, turns, attend), residual=x_ND)[0]

    def at(self, places_M: Tensor, x_ND: Tensor, turns: Turns, attend: Attend) -> Tensor:
        """The stream behind this layer at some places alone, [M, D]."""
        [qkv_NA] = self._qkv(x_ND, turns=(turns.cos, turns.sin))
        attended_MA, x_MD = self._attention(qkv_NA, turns, attend)[places_M], x_ND[places_M]
        return self._last(*self._up(x_MD), attended_MA, residual=x_MD)[0]

    def of_repeated(self, x_UD: Tensor, rows_N: Tensor, turns: Turns, attend: Attend) -> Tensor:
        """The stream behind this layer, [N, D], where token n comes with row `rows_N[n]` of `x_UD`."""
        qkv_UA, up_UF = self._first(*[x_UD] * self._sources)
        [x_UD] = self._down(up_UF, residual=x_UD)
        qkv_NA = qkv_UA.index_select(0, rows_N)
        self._turn(qkv_NA, (turns.cos, turns.sin))
        return self._out(self._attention(qkv_NA, turns, attend), residual=x_UD.index_select(0, rows_N))[0]


class _Sequential:
    """A layer whose MLP reads what attention has written: four calls."""

    def __init__(self, config: ModelConfig, block: Block, run: Callable[[Products], Run], room: Room) -> None:
        norm2 = block.norm1 if block.norm2 is None else block.norm2
        activation = None if config.gated_mlp else config.activation
        down = Source(config.inner, gate=config.activation if config.gated_mlp else None)
        qkv = Products(
            [_source(config, block.norm1)], [Sum(_packed(block.qkv, room), 0, block.qkv.bias)], _turning(config)
        )
        self._qkv, self._turn = run(qkv), qkv.turn
        self._out = run(Products([Source(config.query_rows)], [Sum(_packed(block.out, room), 0, block.out.bias)]))
        up = Sum(_packed(block.up, room), 0, block.up.bias, activation)
        self._up = run(Products([_source(config, norm2)], [up]))
        self._down = run(Products([down], [Sum(_packed(block.down, room), 0, block.down.bias)]))
        self._attention = _attention(config, block)

    def __call__(self, x_ND: Tensor, turns: Turns, attend: Attend) -> Tensor:
        [qkv_NA] = self._qkv(x_ND, turns=(turns.cos, turns.sin))
        return self._mlp(self._out(self._attention(qkv_NA, turns, attend), residual=x_ND)[0])

    def at(self, places_M: Tensor, x_ND: Tensor, turns: Turns, attend: Attend) -> Tensor:
        """The stream behind this layer at some places alone, [M, D]."""
        [qkv_NA] = self._qkv(x_ND, turns=(turns.cos, turns.sin))
        attended_MA = self._attention(qkv_NA, turns, attend)[places_M]
        return self._mlp(self._out(attended_MA, residual=x_ND[places_M])[0])

    def of_repeated(self, x_UD: Tensor, rows_N: Tensor, turns: Turns, attend: Attend) -> Tensor:
        """The stream behind this layer, [N, D], where token n comes with row `rows_N[n]` of `x_UD`."""
        qkv_NA = self._qkv(x_UD)[0].index_select(0, rows_N)
        self._turn(qkv_NA, (turns.cos, turns.sin))
        x_ND = x_UD.index_select(0, rows_N)
        return self._mlp(self._out(self._attention(qkv_NA, turns, attend), residual=x_ND)[0])

    def _mlp(self, x_ND: Tensor) -> Tensor:
        return self._down(*self._up(x_ND), residual=x_ND)[0]


def _attention(config: ModelConfig, block: Block) -> HeadAttention:
    for norm in (block.q_norm, block.k_norm):
        if norm is not None:
            norm.float()
    return HeadAttention(config, block, turned=True)


def _as_they_are(products: Products) -> Run:
    return products


def _turning(config: ModelConfig) -> Turning | None:
    """None where heads are normed before they turn, which is done in torch."""
    if config.qk_norm:
        return None
    return Turning(config.heads + config.kv_heads, config.head_dim, config.rotary_dims, config.rotary_interleaved)


def _source(config: ModelConfig, norm: nn.Module) -> Source:
    assert isinstance(norm, nn.LayerNorm | nn.RMSNorm)
    shift = norm.bias if isinstance(norm, nn.LayerNorm) else None
    return Source(config.width, config.norm, config.norm_eps, norm.weight, shift)


def _packed(linear: nn.Module, room: Room) -> PackedMatrix:
    assert isinstance(linear, nn.Linear | QuantisedLinear)
    return PackedMatrix(linear.quantised if isinstance(linear, QuantisedLinear) else linear.weight, room)


def _both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one.float() + other.float()
