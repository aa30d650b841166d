"""A decoder for answering on a GPU by kernels of our own: as few reads of memory a layer as can be.

A layer whose attention and MLP stand beside each other (GPT-NeoX, GPT-J) is two products: both norms from one statistic
into queries, keys, values and the MLP's first half with its activation; then attention and MLP together back into the
stream. Where one follows the other (llama) there are four. The norms' weights are applied to the vector as it is read:
multiplied into the matrices they would have to be rounded once more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import Tensor, nn

from roslin.engine.gpu.matrix import as_it_is, beside, matrix_of, stacked
from roslin.engine.gpu.products import NormedProduct, Norms, ResidualProduct
from roslin.engine.heads import HeadAttention
from roslin.model import Block
from roslin.model.quantised_linear import QuantisedLinear
from roslin.model.rotary import Rotary

if TYPE_CHECKING:
    from collections.abc import Callable

    from roslin.engine.gpu.launch import Launches
    from roslin.engine.gpu.matrix import Matrix
    from roslin.model import Attend, Decoder, ModelConfig
    from roslin.model.rotary import Turns

    Hold = Callable[[Matrix], Matrix]

MATRICES = ("qkv", "up", "out", "down")


class FromProduct(Protocol):
    """An `Attend` that takes queries, keys and values as the product leaves them."""

    def from_qkv(self, layer: int, qkv_NA: Tensor, turns: Turns, out_NA: Tensor, *, early: bool = False) -> None:
        """Turn queries and keys, remember keys and values, and put what each token gathers into `out_NA`.

        Where `early` its kernel may start early, and lets others do so only after it has waited itself.
        """
        ...


class GpuDecoder:
    """Equals the decoder it was made from; its weights can no longer change."""

    def __init__(self, decoder: Decoder, hold: Hold = as_it_is) -> None:
        """Take `decoder` apart, layer by layer, so that its weights and the joined ones are never both whole.

        `hold` may change the form of every matrix. `launches` can be changed by name between passes.
        """
        self.config: ModelConfig = decoder.config
        self.dtype, self.device = decoder.dtype, decoder.device
        self.launches: Launches = {}
        self._embedding = decoder.embedding
        self._rotary = Rotary(self.config)
        kind = _Parallel if self.config.parallel_residual else _Sequential
        self._layers: list[_Parallel | _Sequential] = []
        for layer, block in enumerate(decoder.blocks):
            assert isinstance(block, Block)
            self._layers.append(kind(self.config, block, self.launches, hold))
            decoder.blocks[layer] = nn.Identity()
        self._norm = Norms(self.config, [decoder.norm])
        head = hold(matrix_of(decoder.head))
        self._head = NormedProduct("head", self.launches, None, head, _bias(decoder.head), head.rows, self.config)

    @property
    def products(self) -> list[NormedProduct | ResidualProduct]:
        """All there are, the head's last."""
        return [*(product for layer in self._layers for product in layer.products), self._head]

    def hidden(self, ids_N: Tensor, positions_N: Tensor, attend: Attend, places_M: Tensor | None = None) -> Tensor:
        """The hidden states after the final norm, [N, D], or [M, D] of some places alone."""
        x_ND = self._embedding(ids_N)
        turns = self._rotary.turns(positions_N, self.dtype, attend)
        z_NI = x_ND.new_empty(len(x_ND), self.config.query_rows + self.config.inner)
        for layer in self._layers:
            layer(x_ND, z_NI, turns, attend)
        return self._norm(x_ND if places_M is None else x_ND[places_M])[0]

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """The logits of every row of the head, [N, V]."""
        return self._head(hidden_ND.contiguous())


def takes(decoder: Decoder) -> bool:
    """Whether a decoder is one that these kernels are for."""
    if decoder.config.parallel_residual and decoder.config.gated_mlp:
        return False
    blocks = [cast("Block", block) for block in decoder.blocks]
    kinds = [[_kind(getattr(block, name)) for name in MATRICES] for block in blocks]
    return all(len(set(its)) == 1 for its in kinds)


class _Parallel:
    """A layer whose attention and MLP stand beside each other: two products."""

    def __init__(self, config: ModelConfig, block: Block, launches: Launches, hold: Hold) -> None:
        self._attended = config.query_rows
        norms = Norms(config, [block.norm1] if block.norm2 is None else [block.norm1, block.norm2])
        first = stacked([hold(matrix_of(block.qkv)), hold(matrix_of(block.up))])
        bias = _joined([block.qkv, block.up])
        self._first = NormedProduct("first", launches, norms, first, bias, config.qkv_rows, config)
        last = beside([hold(matrix_of(block.out)), hold(matrix_of(block.down))])
        self._last = ResidualProduct("last", launches, last, _sum(_bias(block.out), _bias(block.down)))
        self._attention = _Attention(config, block)
        self.products: list[NormedProduct | ResidualProduct] = [self._first, self._last]

    def __call__(self, x_ND: Tensor, z_NI: Tensor, turns: Turns, attend: Attend) -> None:
        qkv_NA = self._first(x_ND, z_NI[:, self._attended :])
        early = len(x_ND) == 1 and self._first.starts_early and self._last.starts_early
        self._attention(qkv_NA, turns, attend, z_NI[:, : self._attended], early=early)
        self._last(z_NI, x_ND)


class _Sequential:
    """A layer whose MLP reads what attention has written: four products."""

    def __init__(self, config: ModelConfig, block: Block, launches: Launches, hold: Hold) -> None:
        self._attended = config.query_rows
        norms = [Norms(config, [norm]) for norm in (block.norm1, block.norm2 or block.norm1)]
        qkv, up, out, down = (hold(matrix_of(getattr(block, name))) for name in MATRICES)
        self._qkv = NormedProduct("qkv", launches, norms[0], qkv, _bias(block.qkv), qkv.rows, config)
        self._out = ResidualProduct("out", launches, out, _bias(block.out))
        self._up = NormedProduct("up", launches, norms[1], up, _bias(block.up), 0, config)
        self._down = ResidualProduct("down", launches, down, _bias(block.down))
        self._attention = _Attention(config, block)
        self.products: list[NormedProduct | ResidualProduct] = [self._qkv, self._out, self._up, self._down]

    def __call__(self, x_ND: Tensor, z_NI: Tensor, turns: Turns, attend: Attend) -> None:
        width = len(x_ND) * self._attended
        attended_NA = z_NI.view(-1)[:width].view(len(x_ND), self._attended)
        active_NF = z_NI.view(-1)[width:].view(len(x_ND), -1)
        early = len(x_ND) == 1 and self._qkv.starts_early and self._out.starts_early
        self._attention(self._qkv(x_ND), turns, attend, attended_NA, early=early)
        self._out(attended_NA, x_ND)
        self._up(x_ND, active_NF)
        self._down(active_NF, x_ND)


class _Attention:
    """Attention into a place that the product behind it reads."""

    def __init__(self, config: ModelConfig, block: Block) -> None:
        self._layer, self._normed = block.layer, config.qk_norm
        self._by_heads = HeadAttention(config, block)

    def __call__(self, qkv_NA: Tensor, turns: Turns, attend: Attend, out_NA: Tensor, *, early: bool) -> None:
        if hasattr(attend, "from_qkv") and not self._normed:
            cast("FromProduct", attend).from_qkv(self._layer, qkv_NA, turns, out_NA, early=early)
        else:
            out_NA.copy_(self._by_heads(qkv_NA, turns, attend))


def _kind(linear: nn.Module) -> str:
    if isinstance(linear, QuantisedLinear):
        return f"{linear.quantised.form}, groups of {linear.quantised.group}"
    return str(cast("nn.Linear", linear).weight.dtype)


def _bias(linear: nn.Module) -> Tensor | None:
    bias = cast("nn.Linear", linear).bias
    return None if bias is None else bias.detach()


def _joined(linears: list[nn.Linear]) -> Tensor | None:
    """All biases in a row, zeros where a matrix has none; None where none has."""
    biases = [_bias(linear) for linear in linears]
    some = next((bias for bias in biases if bias is not None), None)
    if some is None:
        return None
    sizes = [linear.out_features for linear in linears]
    return torch.cat([some.new_zeros(n) if bias is None else bias for bias, n in zip(biases, sizes, strict=True)])


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else (one.float() + other.float()).to(one.dtype)
