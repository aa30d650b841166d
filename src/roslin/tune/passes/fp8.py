"""Matrix products in fp8, for Hopper and later: every matrix gets one scale, from its own largest magnitude.

Both sides of every product are e4m3 (three bits of mantissa), gradients too. e5m2 reaches further down, but rounds
twice as coarsely (5 % of a number in the mean, against 2.6 %), and nothing lies down there: of the gradients that the
small base makes on dolly-15k, 1e-7 of the energy is below e4m3's normal range once the largest number is at its top,
and the gradients of its weights are off by 15.6 % with e4m3, 16.4 % with e5m2 (nearly all from forward's rounding).

What a layer of 6.9B costs beside its products (D = 4096, F = 4 D, N tokens), bytes read and written a number:
- weights, 12 D² numbers: forward 2 (magnitude) + 2 + 1 (by rows), backward 2 + 1 (transposed; the magnitude is known)
- activations, 7 D N: forward 2 + 2 + 1 (by rows), backward 2 + 2 + 1 (transposed), 2 + 1 where the magnitude was kept
- gradients, 8 D N: 2 + 2 + 2 (both copies in one read)
At N = 9,216: 1.6 + 1.3 + 1.3 + 1.8 GB = 6.0 GB, 2.0 ms at 3 TB/s, where fp8 saves about 7 ms of 16 ms of products.
A scale for each row would let forward copies do without the first read (3 bytes for 5), but a transposed copy needs
scales of columns: a gradient would take 3 + 2 + 3 = 8 bytes for 6, a weight or activation 2 + 2 + 1 in backward. That
is 6.1 GB in all: nothing gained, and products with scales of rows are slower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from roslin.errors import InputError, MachineError
from roslin.model.fp8 import CAPABILITY, FP8, has_fp8_cores
from roslin.tune.passes import fp8_scaling
from roslin.tune.passes.fp8_scaling import ALIGNMENT

if TYPE_CHECKING:
    from types import ModuleType

TOP = torch.finfo(FP8).max

FAST_FORWARD = True
"""Sum inside the tensor cores only (about 14 bits) in forward products."""

FAST_GRADIENTS = True
"""The same for the products that make gradients."""


class Quantised(NamedTuple):
    """A matrix [R, K] in fp8, contiguous along the contraction K; a number of it stands for `descale` times itself."""

    numbers_RK: Tensor
    descale: Tensor


class Operand:
    """A bf16 matrix [N, D] on its way into products. Copies in fp8 are made when first asked for, and kept.

    `largest` is its largest magnitude (fp32, no dimensions), where that is known already.
    """

    def __init__(self, x_ND: Tensor, work: ModuleType, largest: Tensor | None = None) -> None:
        if x_ND.dtype != torch.bfloat16:
            raise InputError(f"Products in fp8 need a model in bf16; this one computes in {_name(x_ND.dtype)}.")
        self._x_ND = x_ND if x_ND.stride(-1) == 1 else x_ND.contiguous()
        self._work = work
        self._largest = largest
        self._copies: dict[bool, Quantised] = {}

    @property
    def largest(self) -> Tensor:
        """Its largest magnitude: fp32, no dimensions, on its device."""
        if self._largest is None:
            self._largest = self._work.amax(self._x_ND)
        return self._largest

    def by_rows(self, *, both: bool = False) -> Quantised:
        """[N, D] in fp8. With `both` the transposed copy is made in the same read."""
        return self._copy(False, both)

    def transposed(self, *, both: bool = False) -> Quantised:
        """[D, N] in fp8, zeros filling N up to a multiple of 16. With `both` rows are made in the same read."""
        return self._copy(True, both)

    def _copy(self, transposed: bool, both: bool) -> Quantised:
        if transposed not in self._copies:
            made = self._work.quantise(self._x_ND, self.largest, FP8, TOP, both or not transposed, both or transposed)
            for kind, numbers in zip((False, True), made[:2], strict=True):
                if numbers is not None:
                    self._copies[kind] = Quantised(numbers, made[2])
        return self._copies[transposed]


class Fp8Products:
    """`Products` whose factors are fp8 and whose sums and results are not: bf16 in, bf16 out.

    On CUDA by kernels; on the CPU, in plain torch, the same numbers slowly. Raises MachineError for another device, or
    for one without fp8 tensor cores.
    """

    def __init__(self, device: torch.device) -> None:
        self._work = _work_on(device)
        # What forward found of a weight serves the same pass's backward, before any update can change the weight.
        self._largest: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def operand(self, x_ND: Tensor, largest: Tensor | None = None) -> Operand:
        """A matrix made ready; give `largest`, another operand's of equal numbers, to save a read of it."""
        return Operand(x_ND, self._work, largest)

    def forward(self, x: Operand, weight_OD: Tensor, bias_O: Tensor | None) -> Tensor:
        """x @ weight.T + bias, [N, O]."""
        _check(weight_OD)
        weight = Operand(weight_OD.detach(), self._work)
        self._largest[weight_OD] = weight.largest
        return product(x.by_rows(), weight.by_rows(), bias_O, fast=FAST_FORWARD)

    def grad_input(self, grad: Operand, weight_OD: Tensor) -> Tensor:
        """grad @ weight, [N, D]."""
        weight = Operand(weight_OD.detach(), self._work, self._largest.pop(weight_OD, None))  # type: ignore[no-untyped-call]
        return product(grad.by_rows(both=True), weight.transposed(), None, fast=FAST_GRADIENTS)

    def grad_weight(self, grad: Operand, x: Operand, into_OD: Tensor | None) -> Tensor:
        """grad.T @ x, [O, D], added to `into` in place where that is given."""
        gradient_OD = product(grad.transposed(both=True), x.transposed(), None, fast=FAST_GRADIENTS)
        return gradient_OD if into_OD is None else into_OD.add_(gradient_OD)


def product(left: Quantised, right: Quantised, bias: Tensor | None, *, fast: bool) -> Tensor:
    """left @ right.T + bias in bf16, of matrices [M, K] and [O, K]; `fast` sums inside the tensor cores only."""
    made: Tensor = torch._scaled_mm(
        left.numbers_RK,
        right.numbers_RK.T,
        scale_a=left.descale,
        scale_b=right.descale,
        bias=None if bias is None else bias.detach(),
        out_dtype=torch.bfloat16,
        use_fast_accum=fast,
    )
    return made


def _work_on(device: torch.device) -> ModuleType:
    """Where magnitudes and copies are made: fp8_kernels on CUDA, fp8_scaling on the CPU."""
    if device.type == "cpu":
        return fp8_scaling
    if device.type != "cuda":
        raise MachineError(f"Products in fp8 run on CUDA devices, and this one is {device.type}: leave fp8 off.")
    if not has_fp8_cores(device):
        found = torch.cuda.get_device_capability(device)
        raise MachineError(
            f"Products in fp8 need a GPU of compute capability {_dotted(CAPABILITY)} or later (L4, RTX 40, H100); "
            f"{torch.cuda.get_device_name(device)} has {_dotted(found)}: leave fp8 off."
        )
    try:
        from roslin.tune.passes import fp8_kernels
    except ModuleNotFoundError as error:
        raise MachineError(
            "Products in fp8 need triton, which is not installed: install triton, or leave fp8 off."
        ) from error
    return fp8_kernels


def _check(weight_OD: Tensor) -> None:
    if any(size % ALIGNMENT for size in weight_OD.shape):
        shape = " × ".join(map(str, weight_OD.shape))
        raise InputError(
            f"Products in fp8 need matrices whose sizes are multiples of {ALIGNMENT}; this model has one of {shape}: "
            "leave fp8 off."
        )


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
