"""The kernels of fp8, in Triton's interpreter, against plain torch.

The interpreter rounds to fp8 wrongly (7.97 becomes 4), so kernels write fp32 here: the numbers that are rounded next.
Below bf16's least normal number it reads wrongly too; there only what rounding leaves is compared, which is zeros.
"""

import pytest
import torch
from torch import Tensor

from roslin.tune.passes import fp8_kernels, fp8_scaling

TOP = 448.0
SHAPES = [(1, 16), (7, 48), (130, 160), (65, 2064)]


def drawn(count: int, width: int) -> Tensor:
    """Rows of very different magnitudes."""
    normal = torch.randn(count, width, generator=torch.Generator().manual_seed(0))
    return (normal * torch.logspace(-6, 4, count)[:, None]).bfloat16()


def both_ways(x: Tensor, largest: Tensor, rows: bool, transposed: bool) -> list[tuple[Tensor | None, Tensor | None]]:
    how = (torch.float32, TOP, rows, transposed)
    ours, theirs = fp8_kernels.quantise(x, largest, *how), fp8_scaling.quantise(x, largest, *how)
    return list(zip(ours, theirs, strict=True))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("factor", [1.0, 0.0, 1e30, 1e-25])
def test_largest_magnitude(shape: tuple[int, int], factor: float) -> None:
    x = drawn(*shape) * factor
    assert torch.equal(fp8_kernels.amax(x), x.abs().max().float())


def test_largest_magnitude_may_be_negative_and_last() -> None:
    x = torch.zeros(1030, 2064, dtype=torch.bfloat16)
    x[-1, -1] = -3.0
    assert fp8_kernels.amax(x).item() == 3.0


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_none_stays_visible(wrong: float) -> None:
    x = drawn(20, 32)
    x[3, 5] = wrong
    largest = fp8_kernels.amax(x)
    assert not largest.isfinite()
    for ours, theirs in both_ways(x, largest, True, True):
        assert ours is not None and theirs is not None
        finite, too = (made[..., :20].isfinite() if made.dim() else made.isfinite() for made in (ours, theirs))
        assert torch.equal(finite, too) and not finite.all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("factor", [1.0, 0.0, 1e30, 1e-25])
@pytest.mark.parametrize(("rows", "transposed"), [(True, False), (False, True), (True, True)])
def test_quantise(shape: tuple[int, int], factor: float, rows: bool, transposed: bool) -> None:
    x = drawn(*shape) * factor
    made = both_ways(x, x.abs().max().float(), rows, transposed)
    assert [ours is not None for ours, _ in made] == [rows, transposed, True]
    for ours, theirs in made:
        if ours is not None and theirs is not None:
            assert torch.equal(ours, theirs)


def test_a_magnitude_given_too_small_saturates() -> None:
    x = drawn(40, 64)
    (ours, theirs), *_ = both_ways(x, x.abs().max().float() / 8, True, False)
    assert ours is not None and theirs is not None
    assert torch.equal(ours, theirs) and ours.abs().max() == TOP and (ours.abs() == TOP).sum() > 1


def test_rows_that_are_a_part_of_wider_ones() -> None:
    wide = drawn(33, 96)
    x = wide[:, 32:80]
    assert torch.equal(fp8_kernels.amax(x), x.abs().max().float())
    for ours, theirs in both_ways(x, x.abs().max().float(), True, True):
        assert ours is not None and theirs is not None and torch.equal(ours, theirs)


def test_denormal_numbers_become_zero() -> None:
    x = torch.full((5, 32), 1e-39, dtype=torch.bfloat16)
    for ours, _ in both_ways(x, x.abs().max().float(), True, True)[:2]:
        assert ours is not None and not ours.to(torch.float8_e4m3fn).float().any()


def test_note_amax_of_a_kernel_that_has_the_numbers_at_hand() -> None:
    """Kernels that make a tensor may find its magnitude as they write; it only ever grows."""
    import triton
    import triton.language as tl

    @triton.jit
    def kernel(x_ptr, largest_ptr, size: tl.constexpr):  # type: ignore[no-untyped-def]
        at = tl.program_id(0) * size + tl.arange(0, size)
        fp8_kernels.note_amax(tl.load(x_ptr + at), largest_ptr)

    x, largest = torch.linspace(-9, 4, 64), torch.zeros(())
    kernel[(4,)](x, largest, 16)
    assert largest.item() == 9.0
