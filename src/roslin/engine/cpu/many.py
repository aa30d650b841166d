"""Products of many rows at once, rounded to bfloat16 where they meet a matrix.

Our own kernels do that where the processor multiplies such numbers; where it has matrix units (AMX), or where it has
not even the former, torch's are faster. For these a matrix is unpacked some outputs at a time into one small piece of
memory, which stays in the cache: the work of that is spread over all the rows, and no second copy of the weights is
kept.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_int64, c_void_p
from functools import cache, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from roslin.engine.cpu.library import library

if TYPE_CHECKING:
    from roslin.engine.cpu.matrix import PackedMatrix, Products, Source

Run = Callable[..., list[Tensor]]
"""`Products`, or what takes its place for many rows."""

MANY = 32
"""Rows from which unpacking costs less than it saves."""
SEVERAL = 9
"""Rows from which our own kernels round to bfloat16, where fewer would meet the matrix in fp32."""
PIECE = 2**20
"""Numbers of a matrix that are unpacked at once: 2 MB in bfloat16."""


@cache
def has_fast_bfloat16() -> bool:
    """Whether torch has instructions for bfloat16 here, without which fp32 is faster."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) if torch._C._has_mkldnn else False


@cache
def has_matrix_units() -> bool:
    """Whether torch multiplies by a processor's matrix units here."""
    return bool(torch.cpu._is_amx_tile_supported()) and has_fast_bfloat16()


def rounds() -> bool:
    """Whether our own kernels multiply numbers in bfloat16 here."""
    found = library()
    return found is not None and bool(found.roslin_rounds())


def rounding(products: Products) -> Run:
    """`products`, but that many rows at once are rounded to bfloat16, in the way that is fastest on this processor."""
    run: Run = products
    if rounds():
        least = MANY if any(each.matrix.whole for each in products.sums) else SEVERAL
        run = partial(_by_size, few=run, least=least, many=partial(products, rounded=True))
    if has_matrix_units() or not rounds():
        run = partial(_by_size, few=run, least=MANY, many=partial(many_rows, products))
    return run


def _by_size(
    *rows: Tensor, few: Run, least: int, many: Run, residual: Tensor | None = None,
    turns: tuple[Tensor, Tensor] | None = None,
) -> list[Tensor]:  # fmt: skip
    run = many if len(rows[0]) >= least else few
    return run(*rows, residual=residual, turns=turns)


def many_rows(
    products: Products, *rows: Tensor, residual: Tensor | None = None, turns: tuple[Tensor, Tensor] | None = None
) -> list[Tensor]:
    """What `products` would give for these rows, rounded to bfloat16 where they meet a matrix."""
    inputs = [_prepared(source, x) for source, x in zip(products.sources, rows, strict=True)]
    outs = []
    for each in products.sums:
        out = _product(each.matrix, inputs[each.source])
        if each.bias is not None:
            out += each.bias
        out = activated(out, each.activation)
        if each.other is not None:
            out += _product(each.other, inputs[each.other_source])
        outs.append(out)
    if residual is not None:
        outs[0] += residual
    products.turn(outs[0], turns)
    return outs


def activated(x: Tensor, activation: str | None) -> Tensor:
    """An activation by its name in a configuration."""
    if activation is None:
        return x
    return F.silu(x) if activation == "silu" else F.gelu(x, approximate="tanh" if activation == "gelu_new" else "none")


def _prepared(source: Source, x: Tensor) -> Tensor:
    if source.norm == "layer":
        x = F.layer_norm(x, [source.width], _as_float(source.gain), _as_float(source.shift), source.eps)
    elif source.norm == "rms":
        x = F.rms_norm(x, [source.width], _as_float(source.gain), source.eps)
    if source.gate is not None:
        gate, up = x.chunk(2, -1)
        x = activated(gate, source.gate) * up
    return x.bfloat16()


def _as_float(numbers: Tensor | None) -> Tensor | None:
    return None if numbers is None else numbers.float()


def _product(matrix: PackedMatrix, x_NI: Tensor) -> Tensor:
    """[N, O] in fp32, of rows in bfloat16."""
    found = library()
    assert found is not None
    out_NO = torch.empty(len(x_NI), matrix.outputs)
    at_once = max(1, PIECE // matrix.inputs // 16) * 16
    piece = torch.empty(min(at_once, matrix.outputs), matrix.inputs, dtype=torch.bfloat16)
    for start in range(0, matrix.outputs, at_once):
        count = min(at_once, matrix.outputs - start)
        found.roslin_unpack(
            ctypes.byref(matrix.struct), c_int64(start), c_int64(count), c_void_p(piece.data_ptr()),
            torch.get_num_threads(),
        )  # fmt: skip
        out_NO[:, start : start + count] = F.linear(x_NI, piece[:count])
    return out_NO
