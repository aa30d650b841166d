"""A layer's products with all that is done in the same pass: norms before, activation or the residual sum behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
import triton
from torch import Tensor, nn

from roslin.engine.gpu import few_kernels, row_kernels, vector_kernels
from roslin.engine.gpu.launch import few_launch, few_stages, usual_launch
from roslin.engine.gpu.many import ROW_BLOCK, many_product
from roslin.engine.gpu.matrix import part_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from roslin.engine.gpu.launch import Launches
    from roslin.engine.gpu.matrix import Matrix
    from roslin.model import ModelConfig

FEW = 16
"""Up to so many tokens a matrix is read by our own kernels; more are torch's to multiply."""


class Norms:
    """A norm, or two that read the same vector."""

    def __init__(self, config: ModelConfig, norms: Sequence[nn.Module]) -> None:
        self.kind, self.epsilon, self.width = config.norm, config.norm_eps, config.width
        self.count = len(norms)
        self.gains = torch.stack([_parameter(norm, "weight") for norm in norms])
        shifted = config.norm == "layer"
        self.shifts = torch.stack([_parameter(norm, "bias") for norm in norms]) if shifted else self.gains
        self.whole: int = triton.next_power_of_2(config.width)

    def __call__(self, x_ND: Tensor) -> list[Tensor]:
        """Each norm of each row, [N, D]."""
        outs = [torch.empty_like(x_ND) for _ in range(self.count)]
        row_kernels.norms[(len(x_ND),)](
            x_ND, self.gains, self.shifts, outs[0], outs[-1], self.epsilon,
            self.width, self.whole, self.kind, self.count == 2,
            num_warps=max(4, min(16, self.whole // 512)),
        )  # fmt: skip
        return outs


class _Product:
    """A matrix, its bias, and by what launch one token meets it."""

    def __init__(self, name: str, launches: Launches, matrix: Matrix, bias: Tensor | None) -> None:
        self.name, self._launches = name, launches
        self._matrix, self._bias = matrix, bias
        launches[name] = usual_launch(matrix.widths, matrix.bits)

    @property
    def bytes(self) -> int:
        """Of the matrix."""
        return self._matrix.bytes

    @property
    def bits(self) -> int:
        """Of the matrix's numbers."""
        return self._matrix.bits

    @property
    def _scaled(self) -> bool:
        """Whether what a row comes to has still to be scaled."""
        return self._matrix.scale is not None and not self._matrix.group

    @property
    def starts_early(self) -> bool:
        """Whether one token's product is launched while the kernel before it ends."""
        return self._launches[self.name].early > 0


class NormedProduct(_Product):
    """W · norm(x) + b: `split` rows as they are, the rest by the activation."""

    def __init__(
        self,
        name: str,
        launches: Launches,
        norms: Norms | None,
        matrix: Matrix,
        bias: Tensor | None,
        split: int,
        config: ModelConfig,
    ) -> None:
        """`norms` has a second norm for the rest, or one for all; None takes x as it is."""
        super().__init__(name, launches, matrix, bias)
        self._norms, self._split = norms, split
        self._activation, self._gated = config.activation, config.gated_mlp and split < matrix.rows
        self._active = (matrix.rows - split) // (2 if self._gated else 1)

    def __call__(self, x_ND: Tensor, active_NF: Tensor | None = None) -> Tensor:
        """The plain rows, [N, split]. The rest goes to `active_NF`, whose rows may have a stride."""
        if len(x_ND) > FEW:
            return self._many(x_ND, active_NF)
        plain_NP = x_ND.new_empty(len(x_ND), self._split)
        if len(x_ND) == 1:
            self._one(x_ND, plain_NP, plain_NP if active_NF is None else active_NF)
        else:
            self._few(x_ND, plain_NP, active_NF)
        return plain_NP

    def rehearse(self, x_ND: Tensor) -> None:
        """One token's product, for its time only."""
        self._one(x_ND, x_ND.new_empty(1, max(1, self._split)), x_ND.new_empty(1, max(1, self._active)))

    def _one(self, x_ND: Tensor, plain_NP: Tensor, active_NF: Tensor) -> None:
        launch, norms, matrix = self._launches[self.name], self._norms, self._matrix
        gains, shifts = (x_ND, x_ND) if norms is None else (norms.gains, norms.shifts)
        grid = triton.cdiv(self._split, launch.rows) + triton.cdiv(self._active, launch.rows)
        vector_kernels.normed_product[(grid,)](
            x_ND, gains, shifts, matrix.weight, _or(matrix.scale, x_ND), _or(self._bias, x_ND), plain_NP, active_NF,
            self._split + self._active, self._split, norms.epsilon if norms else 0.0,
            matrix.widths[0], norms.whole if norms else 1, norms.kind if norms else "none",
            norms is not None and norms.count == 2, self._activation, self._gated,
            self._scaled, self._bias is not None, matrix.group,
            launch.rows, launch.block, launch.early, **launch.options,
        )  # fmt: skip

    def _few(self, x_ND: Tensor, plain_NP: Tensor, active_NF: Tensor | None) -> None:
        normed = [x_ND] if self._norms is None else self._norms(x_ND)
        if self._split:
            self._few_rows(normed[0], slice(0, self._split), plain_NP, "none", gated=False)
        if active_NF is not None:
            rest = slice(self._split, self._matrix.rows)
            self._few_rows(normed[-1], rest, active_NF, self._activation, gated=self._gated)

    def _few_rows(self, x_ND: Tensor, which: slice, out_NO: Tensor, activation: str, *, gated: bool) -> None:
        matrix, rows = part_of(self._matrix, which), out_NO.shape[1]
        launch = few_launch(rows, matrix.bits)
        few_kernels.few_product[(triton.cdiv(rows, launch.rows),)](
            x_ND, matrix.weight, _or(matrix.scale, x_ND), x_ND if self._bias is None else self._bias[which],
            out_NO, rows, len(x_ND), x_ND.stride(0), matrix.weight.stride(0), _stride(matrix.scale), out_NO.stride(0),
            x_ND.shape[1], activation, gated, self._scaled, self._bias is not None, matrix.group,
            launch.rows, launch.block, FEW, num_warps=launch.warps, num_stages=few_stages(matrix.bits),
        )  # fmt: skip

    def _many(self, x_ND: Tensor, active_NF: Tensor | None) -> Tensor:
        normed = [x_ND] if self._norms is None else self._norms(x_ND)
        times = many_product(self._matrix, x_ND.dtype, self._split)
        bias = None if self._bias is None else self._bias[: self._split]
        plain_NP = times(normed[0], slice(0, self._split), bias)
        if active_NF is not None:
            up_NU = times(normed[-1], slice(self._split, self._matrix.rows), None)
            grid = (len(up_NU), triton.cdiv(self._active, ROW_BLOCK))
            row_kernels.activate[grid](
                up_NU, up_NU if self._bias is None else self._bias[self._split :], active_NF,
                up_NU.stride(0), active_NF.stride(0), self._active,
                self._activation, self._gated, self._bias is not None, ROW_BLOCK,
            )  # fmt: skip
        return plain_NP


class Exchange(Protocol):
    """What makes the stream whole where each of several processes adds a part of it."""

    def before(self, x_ND: Tensor) -> None:
        """One process's stream stays; all others' become zeros."""
        ...

    def after(self, x_ND: Tensor) -> None:
        """The sum of all of them, in place."""
        ...


class ResidualProduct(_Product):
    """x += W · z + b, z being of one source or of two beside each other: attention's first, then the MLP's."""

    exchange: Exchange | None = None
    """Where other processes have the other columns of the matrix."""

    def __call__(self, z_NI: Tensor, x_ND: Tensor) -> None:
        """Add to `x_ND`, in place."""
        if self.exchange is not None:
            self.exchange.before(x_ND)
        if len(x_ND) > FEW:
            x_ND += many_product(self._matrix, x_ND.dtype)(z_NI, slice(0, self._matrix.rows), self._bias)
        elif len(x_ND) > 1:
            self._few(z_NI, x_ND)
        else:
            self._one(z_NI, x_ND)
        if self.exchange is not None:
            self.exchange.after(x_ND)

    def rehearse(self, x_ND: Tensor) -> None:
        """One token's product, for its time only."""
        self._one(x_ND.new_empty(1, sum(self._matrix.widths)), torch.empty_like(x_ND))

    def _one(self, z_NI: Tensor, x_ND: Tensor) -> None:
        launch, matrix = self._launches[self.name], self._matrix
        vector_kernels.residual_product[(triton.cdiv(matrix.rows, launch.rows),)](
            z_NI, matrix.weight, _or(matrix.scale, x_ND), _or(self._bias, x_ND), x_ND, matrix.rows,
            matrix.widths[0], sum(matrix.widths[1:]), self._scaled, self._bias is not None, matrix.group,
            launch.rows, launch.block, launch.early, **launch.options,
        )  # fmt: skip

    def _few(self, z_NI: Tensor, x_ND: Tensor) -> None:
        matrix = self._matrix
        launch = few_launch(matrix.rows, matrix.bits)
        few_kernels.few_residual[(triton.cdiv(matrix.rows, launch.rows),)](
            z_NI, matrix.weight, _or(matrix.scale, x_ND), _or(self._bias, x_ND), x_ND, matrix.rows, len(x_ND),
            z_NI.stride(0), matrix.weight.stride(0), _stride(matrix.scale), matrix.widths[0], sum(matrix.widths[1:]),
            self._scaled, self._bias is not None, matrix.group,
            launch.rows, launch.block, FEW, num_warps=launch.warps, num_stages=few_stages(matrix.bits),
        )  # fmt: skip


def _stride(scale: Tensor | None) -> int:
    """How far the scales of two rows are apart, where each row has several."""
    return 0 if scale is None else scale.stride(0)


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    """A kernel is given some tensor in the place of one that it will not read."""
    return other if tensor is None else tensor


def _parameter(norm: nn.Module, name: str) -> Tensor:
    parameter = getattr(norm, name)
    assert isinstance(parameter, Tensor)
    return parameter.detach()
