"""Matrices in the order in which the kernels read them, and the products of a layer."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_float, c_int32, c_int64, c_void_p, pointer
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from roslin.engine.cpu.library import library
from roslin.engine.cpu.memory import Room
from roslin.errors import MachineError
from roslin.model.quantised import QuantisedWeight

if TYPE_CHECKING:
    from collections.abc import Sequence

    from roslin.model.quantised import Form

BLOCK = 64
"""Inputs in a block of everything but int4, whose blocks are its groups."""
KINDS = {torch.bfloat16: 16, torch.float32: 32}
FORMS: dict[Form, int] = {"int4": 4, "int8": 8, "fp8": 9}
FP8_PART = 2.0**-8
"""What the kernels take for a number in fp8 is so much of it."""
NORMS = {None: 0, "layer": 1, "rms": 2}
ACTIVATIONS = {None: 0, "gelu": 1, "gelu_new": 2, "silu": 3}


class _Matrix(ctypes.Structure):
    _fields_ = (
        ("data", c_void_p),
        ("scale", c_void_p),
        ("outputs", c_int64),
        ("inputs", c_int64),
        ("block", c_int64),
        ("kind", c_int32),
    )


class _Input(ctypes.Structure):
    _fields_ = (
        ("x", c_void_p),
        ("gain", c_void_p),
        ("shift", c_void_p),
        ("stride", c_int64),
        ("width", c_int64),
        ("norm", c_int32),
        ("gate", c_int32),
        ("eps", c_float),
        ("unused", c_int32),
    )


class _Output(ctypes.Structure):
    _fields_ = (
        ("first", POINTER(_Matrix)),
        ("second", POINTER(_Matrix)),
        ("bias", c_void_p),
        ("residual", c_void_p),
        ("out", c_void_p),
        ("residual_stride", c_int64),
        ("out_stride", c_int64),
        ("first_input", c_int32),
        ("second_input", c_int32),
        ("activation", c_int32),
        ("unused", c_int32),
    )


class _Turn(ctypes.Structure):
    _fields_ = (
        ("cos", c_void_p),
        ("sin", c_void_p),
        ("stride", c_int64),
        ("heads", c_int64),
        ("head_dim", c_int64),
        ("dims", c_int64),
        ("interleaved", c_int32),
        ("output", c_int32),
    )


class PackedMatrix:
    """A matrix [O, I] for products with few rows: a copy, after which the original can go."""

    def __init__(self, weight: Tensor | QuantisedWeight, room: Room | None = None) -> None:
        """Pack a matrix in fp32 or bfloat16, or one in int8, fp8 or int4, into a room's memory. Needs the library."""
        kernels = library()
        assert kernels is not None
        threads = torch.get_num_threads()
        self.outputs, self.inputs = weight.shape
        self.whole = isinstance(weight, QuantisedWeight) and weight.form != "fp8"
        """Whether few rows meet it as whole numbers."""
        self._scale: Tensor | None = None
        kind = FORMS[weight.form] if isinstance(weight, QuantisedWeight) else KINDS[weight.dtype]
        block = (isinstance(weight, QuantisedWeight) and weight.group) or BLOCK
        made = _Matrix(None, None, self.outputs, self.inputs, block, kind)
        kernels.roslin_packed_bytes.restype = c_int64
        self.bytes: int = kernels.roslin_packed_bytes(pointer(made))
        self._data = (room or Room()).take(self.bytes)
        made.data = self._data.data_ptr()
        if not isinstance(weight, QuantisedWeight):
            source = weight.detach().contiguous()
            kernels.roslin_pack_plain(pointer(made), c_void_p(source.data_ptr()), threads)
        elif weight.shift is None:
            self._scale = torch.zeros(-(-self.outputs // 16) * 16)
            self._scale[: self.outputs] = _fp8_scale(weight) if weight.form == "fp8" else weight.scale
            made.scale = self._scale.data_ptr()
            pack = kernels.roslin_pack_fp8 if weight.form == "fp8" else kernels.roslin_pack_int8
            codes = weight.codes.contiguous()
            pack(pointer(made), c_void_p(codes.data_ptr()), threads)
        else:
            codes, scale, shift = (x.contiguous() for x in (weight.codes, weight.scale, weight.shift))
            places = [c_void_p(x.data_ptr()) for x in (codes, scale, shift)]
            kernels.roslin_pack_int4(pointer(made), *places, threads)
        self.struct = made


@dataclass(frozen=True)
class Source:
    """Rows that go into a product: as they are, normed, or gated (`gate` of the first half times the second)."""

    width: int
    norm: str | None = None
    eps: float = 0.0
    gain: Tensor | None = None
    shift: Tensor | None = None
    gate: str | None = None


class Preparation:
    """Rows on their way into products, by themselves: normed or gated."""

    def __init__(self, source: Source) -> None:
        """Needs the library."""
        found = library()
        assert found is not None
        self._prepare, self._width = found.roslin_prepare, source.width
        self._kept: list[Any] = []
        self._input = _input(source, self._kept)

    def __call__(self, x: Tensor) -> Tensor:
        """[N, width] in fp32, of rows in fp32 that are dense."""
        out = torch.empty(len(x), self._width)
        self._input.x, self._input.stride = x.data_ptr(), x.stride(0)
        self._prepare(pointer(self._input), c_int64(len(x)), c_void_p(out.data_ptr()), torch.get_num_threads())
        return out


@dataclass(frozen=True)
class Sum:
    """A matrix times one source, plus a bias, then an activation; and perhaps another matrix times another source."""

    matrix: PackedMatrix
    source: int
    bias: Tensor | None = None
    activation: str | None = None
    other: PackedMatrix | None = None
    other_source: int = 0


@dataclass(frozen=True)
class Turning:
    """Which heads of the first sum turn with their positions: the first `heads`, by their first `dims` numbers."""

    heads: int
    head_dim: int
    dims: int
    interleaved: bool


@dataclass(eq=False)
class Products:
    """Sums that read the same rows at one time, in one call of the library."""

    sources: Sequence[Source]
    sums: Sequence[Sum]
    turning: Turning | None = None
    _kept: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Lay out all that does not change from call to call."""
        found = library()
        assert found is not None
        self._library, self._run = found, found.roslin_run
        self._inputs = (_Input * len(self.sources))(*(_input(source, self._kept) for source in self.sources))
        self._outputs = (_Output * len(self.sums))(*map(self._output, self.sums))
        self._widths = [each.matrix.outputs for each in self.sums]
        self._turn = None
        if self.turning is not None:
            how = self.turning
            self._turn = _Turn(None, None, 0, how.heads, how.head_dim, how.dims, how.interleaved, 0)

    def __call__(
        self,
        *rows: Tensor,
        residual: Tensor | None = None,
        turns: tuple[Tensor, Tensor] | None = None,
        rounded: bool = False,
    ) -> list[Tensor]:
        """Each sum, [N, O] in fp32, of rows [N, I] in fp32 that are contiguous, a tensor for each source.

        `residual` [N, O] is added to the first sum. `turns` are the cosines and signed sines of the positions, whose
        rows have a stride and are dense themselves. `rounded`: rows are rounded to bfloat16 where they meet a matrix,
        which is faster on processors that multiply such numbers and changes nothing on others.
        """
        count = len(rows[0])
        outs = [torch.empty(count, width) for width in self._widths]
        for place, x in zip(self._inputs, rows, strict=True):
            place.x, place.stride = x.data_ptr(), x.stride(0)
        for place, out in zip(self._outputs, outs, strict=True):
            place.out, place.out_stride = out.data_ptr(), out.stride(0)
        if residual is not None:
            self._outputs[0].residual = residual.data_ptr()
            self._outputs[0].residual_stride = residual.stride(0)
        turn = self._turning(turns)
        done = self._run(
            self._inputs, c_int64(len(rows)), self._outputs, c_int64(len(outs)), turn, c_int64(count), int(rounded),
            torch.get_num_threads(),
        )  # fmt: skip
        if not done:
            raise MachineError(f"No memory for the products of {count} tokens: lower max_batch, or shorten.")
        return outs

    def logprobs(self, x_NI: Tensor, counts_N: Tensor, targets_M: Tensor) -> Tensor:
        """Of the one sum's outputs, taken as logits: log-probabilities, and 1.0 where a target is the first choice.

        [2, M]; `targets_M` are the first row's, then the second's and so on, `counts_N` says how many each has.
        """
        starts = torch.zeros(len(counts_N) + 1, dtype=torch.int64)
        torch.cumsum(counts_N, 0, out=starts[1:])
        found = torch.empty(2, len(targets_M))
        x_NI, targets_M = x_NI.contiguous(), targets_M.contiguous()
        self._inputs[0].x, self._inputs[0].stride = x_NI.data_ptr(), x_NI.stride(0)
        done = self._library.roslin_target_logprobs(
            self._inputs, self._outputs, c_int64(len(x_NI)), c_void_p(starts.data_ptr()),
            c_void_p(targets_M.data_ptr()), c_void_p(found[0].data_ptr()), c_void_p(found[1].data_ptr()),
            torch.get_num_threads(),
        )  # fmt: skip
        if not done:
            raise MachineError(f"No memory for the logits of {len(x_NI)} tokens: read fewer at once.")
        return found

    def turn(self, out: Tensor, turns: tuple[Tensor, Tensor] | None) -> None:
        """Turn the heads of the first sum, where there are any to turn: what a call does by itself."""
        if turn := self._turning(turns):
            place, stride = c_void_p(out.data_ptr()), c_int64(out.stride(0))
            self._library.roslin_turn(turn, place, stride, c_int64(len(out)), torch.get_num_threads())

    def _turning(self, turns: tuple[Tensor, Tensor] | None) -> Any:
        """How heads turn in this call; None where they do not."""
        if self._turn is None or turns is None:
            return None
        cos, sin = turns
        self._turn.cos, self._turn.sin, self._turn.stride = cos.data_ptr(), sin.data_ptr(), cos.stride(0)
        return ctypes.byref(self._turn)

    def _output(self, each: Sum) -> _Output:
        other = None if each.other is None else pointer(each.other.struct)
        made = _Output(pointer(each.matrix.struct), other, _numbers(each.bias, self._kept))
        made.first_input, made.second_input = each.source, each.other_source
        made.activation = ACTIVATIONS[each.activation]
        return made


def _fp8_scale(weight: QuantisedWeight) -> Tensor:
    """What brings back the kernels' numbers; a row with a NaN, which they have no room for, has it here."""
    is_nan_OI = weight.codes.view(torch.uint8) & 0x7F == 0x7F
    return (weight.scale / FP8_PART).masked_fill(is_nan_OI.any(1), torch.nan)


def _input(source: Source, kept: list[Any]) -> _Input:
    norm, gate = NORMS[source.norm], ACTIVATIONS[source.gate]
    gain, shift = _numbers(source.gain, kept), _numbers(source.shift, kept)
    return _Input(None, gain, shift, 0, source.width, norm, gate, source.eps, 0)


def _numbers(tensor: Tensor | None, kept: list[Any]) -> int | None:
    """Where a vector's numbers are in fp32, for as long as `kept` lives."""
    if tensor is None:
        return None
    kept.append(tensor.detach().float().contiguous())
    place: int = kept[-1].data_ptr()
    return place
