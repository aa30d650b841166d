"""How AdamW's two moments are kept: in fp32, in bf16, or in 8 bits with a scale for every 128 numbers.

Fewer bits are rounded stochastically, up or down with the probability that makes the mean right. Rounded to the
nearest, a second moment at beta2 = 0.999 would stand still: a step moves it by about a thousandth, and bf16's last
place is a 256th to a 128th of a number, an 8-bit code's more.

8 bits are a small float: a moment, divided by the largest of its block, has its exponent and the first four bits of its
mantissa. In a real run half of a block's second moments are below a tenth of the largest, and up to a fifth of them (in
the head) below a 256th. A linear code of 255 steps would round most of those by much of themselves, and the least to
zero, so that m / sqrt(v) would explode. This one's steps are a 32nd to a 16th of a number over a wide range:

* the second moment, which has no sign, has four bits of exponent: steps are that fine down to 2^-15 of the largest of
  the block, and equal steps of 2^-19 lead on to the least code, which is not zero. A positive second moment
  is therefore never read as zero, and one below 2^-19 is read too large, which makes a step too small, never too large;
* the first moment has a sign and three bits of exponent: steps are that fine down to 2^-7 of the largest (gradients
  whose squares are at the second moment's finest end lie there), and equal steps of 2^-11 lead on to zero.

Rounding at every step adds up over the 1 / (1 - beta2) steps that a second moment remembers: to about a fifth of it, so
to a tenth of the length of a number's step, up or down alike, against which the noise of gradients is large.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from roslin.tune.adamw.noise import halves

Kind = Literal["fp32", "bf16", "8bit"]
BLOCK = 128
"""Numbers, along a row, that share a scale."""
FIRST_TOP, SECOND_TOP = 31 * 2.0**6, 31 * 2.0**14
"""What the largest codes stand for (127: 1.1111b and exponent 7; 255: exponent 15), in units of the least code."""
LEAST_SCALE = 1e-30
"""Blocks whose largest number is below this are kept as zeros; their steps are decided by epsilon."""
_MANTISSA = 4
_DROPPED = 23 - _MANTISSA
_FIRST_NORMAL = (127 + _MANTISSA << _MANTISSA) - (1 << _MANTISSA)


@dataclass(frozen=True)
class Moments:
    """Both moments of a tensor, each [rows, columns] or the tensor's own shape; 8-bit ones have scales."""

    kind: Kind
    first: Tensor
    """fp32, bf16, or uint8: sign, 3 bits of exponent, 4 of mantissa."""
    second: Tensor
    """fp32, bf16, or uint8: 4 bits of exponent, 4 of mantissa."""
    first_scale: Tensor | None = None
    """fp32 [rows, columns / 128], the largest magnitude of each block."""
    second_scale: Tensor | None = None

    @classmethod
    def zeros(cls, kind: Kind, like: Tensor) -> "Moments":
        """Of a tensor that has made no step. Only matrices of whole blocks are kept in 8 bits; all others in fp32."""
        if kind == "8bit" and not (like.dim() == 2 and like.shape[1] % BLOCK == 0):
            kind = "fp32"
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "8bit": torch.uint8}[kind]
        first, second = (torch.zeros(like.shape, dtype=dtype, device=like.device) for _ in range(2))
        if kind != "8bit":
            return cls(kind, first, second)
        shape = (like.shape[0], like.shape[1] // BLOCK)
        scales = (torch.zeros(shape, device=like.device) for _ in range(2))
        return cls(kind, first, second, *scales)

    def parts(self) -> dict[str, Tensor]:
        """The tensors, by the names that torch's AdamW has for them."""
        found = {"exp_avg": self.first, "exp_avg_sq": self.second}
        if self.first_scale is not None and self.second_scale is not None:
            found |= {"exp_avg_scale": self.first_scale, "exp_avg_sq_scale": self.second_scale}
        return found

    def rows(self, start: int, stop: int) -> "Moments":
        """A view of some rows, as matrices; vectors are matrices of one column."""
        views = (part.reshape(len(part), -1)[start:stop] for part in self.parts().values())
        return Moments(self.kind, *views)

    def read(self) -> tuple[Tensor, Tensor]:
        """Both moments of a matrix in fp32; those kept in fp32 are themselves, not copies."""
        if self.first_scale is None or self.second_scale is None:
            return self.first.float(), self.second.float()
        first = _scaled(_decoded(self.first & 0x7F), self.first_scale, FIRST_TOP)
        first = torch.where(self.first > 0x7F, -first, first)
        return first, _scaled(_decoded(self.second), self.second_scale, SECOND_TOP)

    def write(self, first: Tensor, second: Tensor, bits: Tensor | None) -> None:
        """Keep both moments of a matrix, rounded by `bits` (32 random ones a number) unless they are kept in fp32."""
        if bits is None:
            self.first.copy_(first)
            self.second.copy_(second)
            return
        lower, upper = (half.view(first.shape) for half in halves(bits))
        if self.first_scale is None or self.second_scale is None:
            self.first.copy_(_rounded_to_bf16(first, lower))
            self.second.copy_(_rounded_to_bf16(second, upper))
            return
        code = _encoded(first.abs(), lower, FIRST_TOP, self.first_scale)
        self.first.copy_(code + 0x80 * (first < 0))
        self.second.copy_(_encoded(second, upper, SECOND_TOP, self.second_scale).clamp_(min=1))


def _rounded_to_bf16(exact: Tensor, noise: Tensor) -> Tensor:
    bits = exact.view(torch.int32) + noise
    return bits.bitwise_and_(-0x10000).view(torch.float32)


def _decoded(code: Tensor) -> Tensor:
    """What codes stand for, in units of the least code."""
    normal = ((code.to(torch.int32) + _FIRST_NORMAL) << _DROPPED).view(torch.float32)
    return torch.where(code < 1 << _MANTISSA, code.float(), normal)


def _scaled(units_RC: Tensor, scale_RB: Tensor, top: float) -> Tensor:
    blocks_RBK = units_RC.view(*scale_RB.shape, BLOCK)
    return (blocks_RBK * (scale_RB * (1 / top))[..., None]).view(units_RC.shape)


def _encoded(magnitude_RC: Tensor, noise_RC: Tensor, top: float, scale_RB: Tensor) -> Tensor:
    """Codes (int32) of magnitudes; the scales are set to each block's largest."""
    blocks_RBK = magnitude_RC.view(*scale_RB.shape, BLOCK)
    torch.amax(blocks_RBK, -1, out=scale_RB)
    inverse_RB = torch.where(scale_RB > LEAST_SCALE, top / scale_RB, 0.0)
    units_RC = (blocks_RBK * inverse_RB[..., None]).view(magnitude_RC.shape)
    normal = ((units_RC.view(torch.int32) + (noise_RC << (_DROPPED - 16))) >> _DROPPED) - _FIRST_NORMAL
    below = (units_RC + noise_RC * 2.0**-16).to(torch.int32)
    return torch.where(units_RC < 1 << _MANTISSA, below, normal)
