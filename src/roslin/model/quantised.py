"""Weights in 8 or 4 bits, Roslin's own format for answering.

A matrix in int8 keeps, for each output, a scale, and each number as the nearest of 255 multiples of it; in fp8 each
number is one in floating point, whose greatest the scale takes to the row's largest. A matrix in int4 is cut along its
inputs into groups; a group keeps a scale and a shift in fp16, and each number as one of sixteen: code · scale + shift.
Where the sixteen lie is found without data, by alternating least squares: each number takes the nearest, then the scale
and shift that fit the numbers so coded best are solved for, and so on. Larger numbers weigh more, by their magnitude
and the group's: what they are off by reaches further. That ends near where it began, so it begins several times, with
the sixteen spread over ever less than all of the group's numbers: a few outlying ones are better cut off than allowed
to widen every step. Of all ends the best is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from roslin.errors import InputError
from roslin.model.fp8 import FP8, joined

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Form = Literal["int8", "fp8", "int4"]

GROUP = 64
"""Inputs that share a scale and a shift in int4: 4.5 bits a weight in all."""
GROUPS = (32, 64, 128)
"""The sizes of a group that the kernels read."""

LEVELS_8, LEVELS_4 = 127, 15
SHARES = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Over how much of a group's range the sixteen are spread at first, a start each."""
ROUNDS = 4
AT_ONCE = 2**18
"""Numbers of a matrix that are quantised at once: what is in hand stays in a core's own cache."""


@dataclass(frozen=True, eq=False)
class QuantisedWeight:
    """A matrix [O, I] in 8 or 4 bits.

    In 8 bits `codes` are int8 or fp8 (e4m3) [O, I], `scale` is fp32 [O], and `shift` and `group` are none. In 4 bits
    `codes` are uint8 [O, ceil(I / 2)] with two numbers each, the first in the low half; `scale` and `shift` are fp16
    [O, groups], the last group being shorter where `group` does not divide I.
    """

    codes: Tensor
    scale: Tensor
    shape: tuple[int, int]
    shift: Tensor | None = None
    group: int | None = None

    @property
    def form(self) -> Form:
        """Of the codes."""
        if self.shift is not None:
            return "int4"
        return "fp8" if self.codes.dtype == FP8 else "int8"

    @property
    def bits(self) -> int:
        """Of each code."""
        return 8 if self.shift is None else 4

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The matrix [O, I], multiplied out in fp32 and rounded once."""
        if self.shift is None or self.group is None:
            return (self.codes.float() * self.scale[:, None]).to(dtype)
        rows, columns = self.shape
        codes = torch.stack([self.codes & 15, self.codes >> 4], -1).flatten(1)[:, :columns]
        grouped = _in_groups(codes.float(), self.group)
        numbers = grouped * self.scale.float()[..., None] + self.shift.float()[..., None]
        return numbers.view(rows, -1)[:, :columns].to(dtype)

    def to(self, device: torch.device) -> QuantisedWeight:
        """The same on a device."""
        shift = None if self.shift is None else self.shift.to(device)
        return QuantisedWeight(self.codes.to(device), self.scale.to(device), self.shape, shift, self.group)

    def rows(self, which: Tensor | slice) -> QuantisedWeight:
        """Some rows in the order given."""
        shift = None if self.shift is None else self.shift[which]
        codes = _raw(self.codes)[which].view(self.codes.dtype)
        return QuantisedWeight(codes, self.scale[which], (len(codes), self.shape[1]), shift, self.group)

    def with_zeros(self, count: int) -> QuantisedWeight:
        """So many rows of zeros below."""
        codes, scale = _longer(_raw(self.codes), count).view(self.codes.dtype), _longer(self.scale, count)
        shift = None if self.shift is None else _longer(self.shift, count)
        return QuantisedWeight(codes, scale, (len(codes), self.shape[1]), shift, self.group)

    def cuts(self, first: int, last: int) -> bool:
        """Whether columns `first` to `last` have a part of a group and not all of it."""
        return self.group is not None and bool(first % self.group or (last % self.group and last < self.shape[1]))

    def columns(self, first: int, last: int) -> QuantisedWeight:
        """Those from `first` on and before `last`, which must not cut a group."""
        shape = (self.shape[0], last - first)
        if self.shift is None or self.group is None:
            return QuantisedWeight(self.codes[:, first:last], self.scale, shape)
        assert not self.cuts(first, last)
        codes, groups = self.codes[:, first // 2 : -(-last // 2)], slice(first // self.group, -(-last // self.group))
        return QuantisedWeight(codes, self.scale[:, groups], shape, self.shift[:, groups], self.group)


def stacked(weights: Sequence[QuantisedWeight]) -> QuantisedWeight:
    """All rows of some matrices of one form, each piece in one dense tensor."""
    first = weights[0]
    codes = joined([each.codes for each in weights])
    scale = joined([each.scale for each in weights])
    shifts = [each.shift for each in weights if each.shift is not None]
    return QuantisedWeight(codes, scale, (len(codes), first.shape[1]), joined(shifts) if shifts else None, first.group)


def _raw(codes: Tensor) -> Tensor:
    """Codes as bytes: not on every device can torch index those in fp8, or add to them."""
    return codes.view(torch.uint8)


def _longer(piece: Tensor, count: int) -> Tensor:
    return torch.cat([piece, piece.new_zeros(count, *piece.shape[1:])])


def quantise_8(weight_OI: Tensor) -> QuantisedWeight:
    """The matrix in int8; a row's largest number is kept."""
    weight_OI = _finite(weight_OI)
    scale_O = weight_OI.abs().amax(1) / LEVELS_8
    codes_OI = (weight_OI / scale_O.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round()
    rows, columns = weight_OI.shape
    return QuantisedWeight(codes_OI.clamp(-LEVELS_8, LEVELS_8).to(torch.int8), scale_O, (rows, columns))


def quantise_fp8(weight_OI: Tensor) -> QuantisedWeight:
    """The matrix in fp8 (e4m3); a row's largest number is kept, and others to three bits behind the first."""
    weight_OI = _finite(weight_OI)
    scale_O = weight_OI.abs().amax(1) / torch.finfo(FP8).max
    scaled_OI = weight_OI / scale_O.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    rows, columns = weight_OI.shape
    return QuantisedWeight(scaled_OI.to(FP8), scale_O, (rows, columns))


def quantise_4(weight_OI: Tensor, group: int = GROUP) -> QuantisedWeight:
    """The matrix in 4 bits, scales and shifts solved for. Raises InputError for a `group` that is none of GROUPS."""
    return _in_4_bits(weight_OI, group, _solved)


def round_to_4(weight_OI: Tensor, group: int = GROUP) -> QuantisedWeight:
    """The matrix in 4 bits with each group's sixteen numbers spread from its least to its greatest: for comparison."""
    return _in_4_bits(weight_OI, group, _spread)


def quantise(weight_OI: Tensor, form: Form, group: int = GROUP) -> QuantisedWeight:
    """The matrix in a form; `group` is of int4."""
    if form == "int4":
        return quantise_4(weight_OI, group)
    return quantise_fp8(weight_OI) if form == "fp8" else quantise_8(weight_OI)


def _in_4_bits(weight_OI: Tensor, group: int, fit: Callable[[Tensor], tuple[Tensor, Tensor]]) -> QuantisedWeight:
    if group not in GROUPS:
        raise InputError(f"A group of {group} numbers is none that int4 has here: {', '.join(map(str, GROUPS))}.")
    at_once = max(1, AT_ONCE // weight_OI.shape[1])
    parts = [_some_rows(part, group, fit) for part in torch.split(weight_OI.detach(), at_once)]
    codes, scale, shift = (torch.cat(pieces) for pieces in zip(*parts, strict=True))
    rows, columns = weight_OI.shape
    return QuantisedWeight(codes, scale, (rows, columns), shift, group)


def _some_rows(
    weight_OI: Tensor, group: int, fit: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns = weight_OI.shape
    grouped_OGC = _in_groups(_finite(weight_OI), group)
    scale, shift = fit(grouped_OGC)
    codes_OI = _coded(grouped_OGC, scale, shift).to(torch.uint8).view(rows, -1)[:, :columns]
    pairs = F.pad(codes_OI, (0, columns % 2)).view(rows, -1, 2)
    return pairs[..., 0] | pairs[..., 1] << 4, scale.squeeze(-1).half(), shift.squeeze(-1).half()


def _in_groups(numbers_OI: Tensor, group: int) -> Tensor:
    """[O, groups, group]; what a last group lacks is filled up with its row's last number, which widens no group."""
    rows, columns = numbers_OI.shape
    missing = -columns % group
    if missing:
        numbers_OI = torch.cat([numbers_OI, numbers_OI[:, -1:].expand(rows, missing)], 1)
    return numbers_OI.reshape(rows, -1, group)


def _spread(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift [..., 1] of each group, as fp16 has them, from the group's least and greatest number."""
    least, greatest = numbers.aminmax(dim=-1, keepdim=True)
    return _as_kept((greatest - least) / LEVELS_4), _as_kept(least)


def _solved(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift [..., 1] of each group, as fp16 has them, of the start that ends nearest to the numbers."""
    least, greatest = numbers.aminmax(dim=-1, keepdim=True)
    middle, half = (least + greatest) / 2, (greatest - least) / 2
    weights = numbers.abs() + numbers.square().mean(-1, keepdim=True).sqrt()
    best_scale, best_shift = _spread(numbers)
    nearest = _distance(numbers, weights, best_scale, best_shift)
    for share in SHARES:
        scale, shift = _as_kept(2 * share * half / LEVELS_4), _as_kept(middle - share * half)
        for _ in range(ROUNDS):
            scale, shift = _line_through(_coded(numbers, scale, shift), numbers, weights, scale)
        distance = _distance(numbers, weights, scale, shift)
        better = distance < nearest
        best_scale, best_shift = torch.where(better, scale, best_scale), torch.where(better, shift, best_shift)
        nearest = torch.where(better, distance, nearest)
    return best_scale, best_shift


def _line_through(codes: Tensor, numbers: Tensor, weights: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The scale and shift that take codes to numbers with the least squares; the old scale where all codes are one."""
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    code_mean, mean = (weights * codes).sum(-1, keepdim=True), (weights * numbers).sum(-1, keepdim=True)
    spread = (weights * (codes - code_mean) ** 2).sum(-1, keepdim=True)
    slope = (weights * (codes - code_mean) * (numbers - mean)).sum(-1, keepdim=True) / spread.clamp(min=1e-12)
    scale = _as_kept(torch.where((spread > 0) & (slope > 0), slope, scale))
    return scale, _as_kept(mean - scale * code_mean)


def _distance(numbers: Tensor, weights: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """How far each group is from its numbers, in weighted squares."""
    return (weights * (numbers - (_coded(numbers, scale, shift) * scale + shift)) ** 2).sum(-1, keepdim=True)


def _coded(numbers: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The nearest code of each number."""
    return ((numbers - shift) / scale.clamp(min=torch.finfo(torch.float32).tiny)).round().clamp(0, LEVELS_4)


def _as_kept(numbers: Tensor) -> Tensor:
    return numbers.half().float()


def _finite(weight_OI: Tensor) -> Tensor:
    weight_OI = weight_OI.detach().float()
    if not weight_OI.isfinite().all():
        raise InputError("a matrix holds numbers that are infinite or none, which no scale can hold")
    return weight_OI
