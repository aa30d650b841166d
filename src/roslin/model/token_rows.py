"""The rows of a few tokens, trained while the rest of the embedding and of the head is frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence


class RowsEmbedding(nn.Module):
    """A frozen embedding, but for the rows `rows_KD` of the tokens `ids_K`, which are fp32 and learn."""

    ids_K: Tensor

    def __init__(self, base: nn.Embedding, ids: Sequence[int]) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.register_buffer("ids_K", torch.tensor(ids, device=base.weight.device))
        self.rows_KD = nn.Parameter(base.weight.detach()[self.ids_K].float())

    @property
    def weight(self) -> Tensor:
        """The whole matrix [V, D] as it is now."""
        return _with_rows(self.base.weight, self.ids_K, self.rows_KD)

    def forward(self, ids_N: Tensor) -> Tensor:
        """Ids to their rows, [N, D]."""
        x_ND: Tensor = self.base(ids_N)
        is_new_NK = ids_N[:, None] == self.ids_K
        # A product instead of a look-up: its gradient does not depend on the order in which a GPU adds.
        new_ND = is_new_NK.to(x_ND.dtype) @ self.rows_KD.to(x_ND.dtype)
        return torch.where(is_new_NK.any(1, keepdim=True), new_ND, x_ND)

    def settled(self) -> nn.Embedding:
        """The plain embedding, with the rows in their places."""
        _with_rows(self.base.weight, self.ids_K, self.rows_KD)
        return self.base


class RowsHead(nn.Module):
    """A frozen head, but for the rows `rows_KD` of the tokens `ids_K`, and their biases where it has any.

    A head that is tied to the embedding is given the embedding's rows.
    """

    ids_K: Tensor

    def __init__(self, base: nn.Linear, ids: Sequence[int], rows_KD: nn.Parameter | None = None) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.register_buffer("ids_K", torch.tensor(ids, device=base.weight.device))
        self.rows_KD = nn.Parameter(base.weight.detach()[self.ids_K].float()) if rows_KD is None else rows_KD
        has_bias = base.bias is not None
        self.biases_K = nn.Parameter(base.bias.detach()[self.ids_K].float()) if has_bias else None

    @property
    def weight(self) -> Tensor:
        """The whole matrix [V, D] as it is now. No gradients come by it: the loss takes them to `rows_KD` itself."""
        return _with_rows(self.base.weight, self.ids_K, self.rows_KD)

    @property
    def bias(self) -> Tensor | None:
        """The whole bias [V] as it is now, if there is one."""
        return None if self.biases_K is None else _with_rows(self.base.bias, self.ids_K, self.biases_K)

    def forward(self, hidden_ND: Tensor) -> Tensor:
        """Hidden states to logits, [N, V]."""
        logits_NV: Tensor = self.base(hidden_ND)
        biases = None if self.biases_K is None else self.biases_K.to(hidden_ND.dtype)
        return logits_NV.index_copy(1, self.ids_K, F.linear(hidden_ND, self.rows_KD.to(hidden_ND.dtype), biases))

    def settled(self) -> nn.Linear:
        """The plain head, with the rows and biases in their places."""
        _with_rows(self.base.weight, self.ids_K, self.rows_KD)
        if self.biases_K is not None:
            _with_rows(self.base.bias, self.ids_K, self.biases_K)
        return self.base


def _with_rows(matrix: Tensor, ids_K: Tensor, rows: Tensor) -> Tensor:
    """The matrix with the rows written into it: in place, for a copy of it would be some hundred MB a pass.

    What they overwrite is used nowhere. `data`, for autograd need not know.
    """
    matrix.data.index_copy_(0, ids_K, rows.detach().to(matrix.dtype))
    return matrix.detach()
