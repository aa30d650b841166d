"""A decoder of one share's sizes, its layers made to sum what the shares write: the same network in every process.

Where attention and MLP stand beside each other (GPT-NeoX, GPT-J) both are summed at once, one sum a layer; where one
follows the other (llama) there are two. Embedding rows are summed too: one process has a token's row, others zeros.
"""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from roslin.engine.heads import HeadAttention
from roslin.engine.network import Network
from roslin.model import Attend, Block, Decoder
from roslin.model.decoder import activation_of
from roslin.model.rotary import Turns
from roslin.model.share import Share

if TYPE_CHECKING:
    from roslin.model import ModelConfig

Total = Callable[[Tensor], Tensor]
"""The sum of every process's tensor, in its place."""


def joined(decoder: Decoder, share: Share, total: Total) -> Network:
    """The share's network; `decoder` is taken apart for it. On a GPU it runs by our own kernels, where Triton is."""
    embedding = SharedEmbedding(decoder.embedding, share, total)
    decoder.embedding = cast("nn.Embedding", embedding)
    if decoder.device.type == "cuda" and find_spec("triton") is not None:
        from roslin.engine.gpu.decoder import takes

        if takes(decoder):
            return _by_kernels(decoder, Exchange(share, total))
    for layer, block in enumerate(decoder.blocks):
        decoder.blocks[layer] = SharedLayer(decoder.config, cast("Block", block), total)
    return decoder


def _by_kernels(decoder: Decoder, exchange: "Exchange") -> Network:
    from roslin.engine.gpu.decoder import GpuDecoder
    from roslin.engine.gpu.products import ResidualProduct

    network = GpuDecoder(decoder)
    for product in network.products:
        if isinstance(product, ResidualProduct):
            product.exchange = exchange
    for name, launch in network.launches.items():
        network.launches[name] = replace(launch, early=0)  # another stream's kernels stand between ours
    return network


class SharedEmbedding(nn.Module):
    """The embedding of which each process has some rows."""

    def __init__(self, rows: nn.Embedding, share: Share, total: Total) -> None:
        super().__init__()
        self.rows = rows
        self._first = share.rank * rows.num_embeddings
        self._total = total

    def forward(self, ids_N: Tensor) -> Tensor:
        """[N] to [N, D]."""
        own_N = ids_N - self._first
        elsewhere_N = (own_N < 0) | (own_N >= self.rows.num_embeddings)
        x_ND = self.rows(own_N.masked_fill(elsewhere_N, 0))
        return self._total(x_ND.masked_fill_(elsewhere_N[:, None], 0))


class SharedLayer(nn.Module):
    """A layer in plain torch of which each process has some heads and some of the MLP."""

    def __init__(self, config: "ModelConfig", block: Block, total: Total) -> None:
        super().__init__()
        self.block = block
        self._parallel = config.parallel_residual
        self._attention = HeadAttention(config, block)
        self._activate = activation_of(config)
        self._total = total

    def forward(self, x_ND: Tensor, turns: Turns, attend: Attend) -> Tensor:
        """The stream after this layer, [N, D], the same in every process."""
        block = self.block
        normed_ND = block.norm1(x_ND)
        part_ND: Tensor = block.out(self._attention(block.qkv(normed_ND), turns, attend))
        if not self._parallel:
            x_ND = x_ND + self._total(part_ND)
            normed_ND = block.norm1(x_ND) if block.norm2 is None else block.norm2(x_ND)
            return x_ND + self._total(self._mlp(normed_ND))
        normed_ND = normed_ND if block.norm2 is None else block.norm2(x_ND)
        return x_ND + self._total(part_ND + self._mlp(normed_ND))

    def _mlp(self, normed_ND: Tensor) -> Tensor:
        out_ND: Tensor = self.block.down(self._activate(self.block.up(normed_ND)))
        return out_ND


class Exchange:
    """What stands around a product that adds to the stream in its place: the first process adds, all of them sum."""

    def __init__(self, share: Share, total: Total) -> None:
        self._share, self._total = share, total

    def before(self, x_ND: Tensor) -> None:
        """The stream itself must be in the sum once."""
        if not self._share.is_first:
            x_ND.zero_()

    def after(self, x_ND: Tensor) -> None:
        """The sum is the stream again."""
        self._total(x_ND)
