"""A decoder with an adapter in it: put in to be trained, or merged into the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from roslin.errors import InputError
from roslin.model.families import FAMILIES
from roslin.model.grad_mode import no_grad
from roslin.model.lora import LoraLinear, Part, as_linear, dense_weight
from roslin.model.nf4_linear import Nf4Linear
from roslin.model.token_rows import RowsEmbedding, RowsHead

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import torch
    from torch import nn

    from roslin.model.config import ModelConfig
    from roslin.model.decoder import Decoder

LINEARS = ("qkv", "out", "up", "down")
"""The linear layers of a block."""
ALL = "all"


@dataclass(frozen=True)
class Lora:
    """What an adapter is made of: B·A of this rank beside each module, times alpha / rank (rsLoRA: alpha / √rank).

    `modules` are names that the family's files have for them (`module_names`), or `all` alone.
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    rslora: bool = False
    modules: Sequence[str] = (ALL,)

    @property
    def scaling(self) -> float:
        """What B·A is multiplied with."""
        return lora_scaling(self.alpha, self.rank, self.rslora)


def lora_scaling(alpha: float, rank: int, rslora: bool) -> float:
    """alpha / rank, or alpha / √rank, with which a rank's size does not change the layer's (arXiv 2312.03732)."""
    return alpha / math.sqrt(rank) if rslora else alpha / rank


def module_names(config: ModelConfig) -> list[str]:
    """What the family's files call the linear layers of a block: `query_key_value`, `dense` …; `q_proj`, `k_proj` …"""
    family = FAMILIES[config.family]
    return [name.split(".")[-2] for ours in LINEARS for name in family.block_names(f"{ours}.weight")]


def chosen_modules(config: ModelConfig, modules: Sequence[str]) -> list[str]:
    """The names that `modules` stands for. Raises InputError listing the family's when one is none of them."""
    known = module_names(config)
    if list(modules) == [ALL]:
        return known
    if unknown := [name for name in modules if name not in known]:
        raise InputError(
            f"The adapter's modules name {', '.join(unknown)}; those of {config.family} are {', '.join(known)}, or "
            f"{ALL} alone."
        )
    return [name for name in known if name in modules]


def file_modules(config: ModelConfig, layer: int, ours: str) -> list[tuple[str, int, int]]:
    """The modules that a block's linear layer is in files, in order: name, first row, and row after the last."""
    source = FAMILIES[config.family].source(f"blocks.{layer}.{ours}.weight")
    whole = {"qkv": config.qkv_rows, "up": config.up_rows}.get(ours, config.width)
    counts = source.rows(config, whole)
    return [
        (name.removesuffix(".weight"), sum(counts[:index]), sum(counts[: index + 1]))
        for index, name in enumerate(source.names)
    ]


def adapt(decoder: Decoder, lora: Lora, new_ids: Sequence[int], source: torch.Generator) -> None:
    """Freeze a decoder, and add what learns in its place: an adapter that adds nothing yet, and the rows of `new_ids`.

    A is drawn from `source`, a generator on the CPU. The decoder is put into evaluation mode, in which nothing is
    dropped. Raises InputError for names of modules that the family has not.
    """
    chosen = chosen_modules(decoder.config, lora.modules)
    decoder.requires_grad_(False)
    for block, layer, ours in _linears(decoder):
        if parts := _parts(decoder.config, layer, ours, lora, chosen):
            adapted = LoraLinear(getattr(block, ours), parts, lora.dropout)
            adapted.start_from(source)
            setattr(block, ours, adapted)
    if new_ids:
        train_rows(decoder, new_ids, new_ids)
    decoder.eval()


def _parts(config: ModelConfig, layer: int, ours: str, lora: Lora, chosen: Collection[str]) -> list[Part]:
    return [
        Part(module, start, stop, lora.rank, lora.scaling)
        for module, start, stop in file_modules(config, layer, ours)
        if module.rpartition(".")[2] in chosen
    ]


def _linears(decoder: Decoder) -> Iterator[tuple[nn.Module, int, str]]:
    for layer, block in enumerate(decoder.blocks):
        for ours in LINEARS:
            yield block, layer, ours


def train_rows(decoder: Decoder, embedding_ids: Sequence[int], head_ids: Sequence[int]) -> None:
    """Have these tokens' rows learn, of the embedding and of the head; a tied head learns with the embedding."""
    embedding = RowsEmbedding(decoder.embedding, embedding_ids) if embedding_ids else None
    if embedding is not None and decoder.config.tied_head:
        decoder.add_module("head", RowsHead(decoder.head, embedding_ids, embedding.rows_KD))
    elif head_ids:
        decoder.add_module("head", RowsHead(decoder.head, head_ids))
    if embedding is not None:
        decoder.add_module("embedding", embedding)


@no_grad
def quantize_blocks(decoder: Decoder, device: torch.device) -> None:
    """Turn the matrices of the blocks into nf4, layer by layer, on `device`, which never holds them all unquantised."""
    for block in decoder.blocks:
        block.to(device)
        for ours in LINEARS:
            setattr(block, ours, Nf4Linear.from_linear(getattr(block, ours)))
    decoder.to(device)


@no_grad
def merge(decoder: Decoder, dtype: torch.dtype | None = None) -> None:
    """Put an adapter into the weights, in fp32 and rounded once, to `dtype` or the decoder's; nf4 becomes dense too.

    What is left is a plain decoder, all of which can learn.
    """
    dtype = dtype or decoder.dtype
    for block, _, ours in _linears(decoder):
        setattr(block, ours, _plain(getattr(block, ours), dtype))
    decoder.to(dtype)
    for name in ("embedding", "head"):
        layer = getattr(decoder, name)
        if isinstance(layer, RowsEmbedding | RowsHead):
            decoder.add_module(name, layer.settled())
    decoder.requires_grad_(True)
    decoder.tie()


def _plain(layer: nn.Module, dtype: torch.dtype) -> nn.Module:
    if isinstance(layer, LoraLinear):
        return layer.merged(dtype)
    return as_linear(dense_weight(layer).to(dtype), layer.bias) if isinstance(layer, Nf4Linear) else layer
