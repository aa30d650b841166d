"""Fitting the rows of the embedding and the head to a tokenizer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from roslin.model.grad_mode import no_grad

if TYPE_CHECKING:
    from collections.abc import Sequence

    from roslin.model.decoder import Decoder

ROW_MULTIPLE = 64
"""Grown vocabularies end on a multiple of this, for which matrix kernels are made."""


def fitting_rows(rows: int, tokens: int) -> int:
    """How many rows embedding and head have once they are fitted: as many as they have, if tokens fit in there."""
    return rows if tokens <= rows else -(-tokens // ROW_MULTIPLE) * ROW_MULTIPLE


@no_grad
def fit_vocabulary(
    decoder: Decoder, tokenizer_size: int, new_ids: Sequence[int], init: Literal["mean", "keep"]
) -> None:
    """Give every token of a tokenizer a row, and the tokens just added to it a start.

    Rows that are there stay, used or padding. Where there are fewer than `tokenizer_size`, rows are added up to a
    multiple of 64, each the mean of the used rows: those of ids below `tokenizer_size` that are not new. `mean` sets
    the rows of `new_ids` to that mean as well; `keep` leaves those that were there. The same holds for the embedding,
    the head and the head's bias. The parameters are replaced: call this before making an optimizer.
    """
    rows = decoder.config.vocab_rows
    used = used_rows(rows, tokenizer_size, new_ids).to(decoder.device)
    grown = fitting_rows(rows, tokenizer_size)
    reset = list(new_ids) if init == "mean" else []
    decoder.embedding.weight = _fitted(decoder.embedding.weight, used, grown, reset)
    if not decoder.config.tied_head:
        decoder.head.weight = _fitted(decoder.head.weight, used, grown, reset)
    if decoder.config.head_bias:
        decoder.head.bias = _fitted(decoder.head.bias, used, grown, reset)
    decoder.embedding.num_embeddings = decoder.head.out_features = grown
    decoder.config = replace(decoder.config, vocab_rows=grown)
    decoder.tie()


def used_rows(rows: int, tokenizer_size: int, new_ids: Sequence[int]) -> Tensor:
    """Which of a base's first rows belong to tokens that it knows, as booleans."""
    used = torch.ones(min(rows, tokenizer_size), dtype=torch.bool)
    used[[token for token in new_ids if token < len(used)]] = False
    return used


def rows_of_mean(rows: int, grown: int, reset: Sequence[int]) -> list[int]:
    """The rows that become the mean of the used ones: those added, and those set anew."""
    return sorted({*range(rows, grown), *reset})


def mean_row(weight: Tensor, used: Tensor) -> Tensor:
    """The mean of a matrix's used rows, or of a vector's used numbers."""
    return weight[: len(used)][used].mean(0, dtype=torch.float32).to(weight.dtype)


def _fitted(weight: Tensor, used: Tensor, rows: int, reset: Sequence[int]) -> nn.Parameter:
    mean = mean_row(weight, used)
    added = mean.expand(rows - len(weight), *weight.shape[1:])
    fitted = torch.cat([weight, added]) if len(added) else weight.detach()
    fitted[list(reset)] = mean
    return nn.Parameter(fitted, requires_grad=weight.requires_grad)
