"""Moments in few bits: what a code can tell apart, means that are right, and a second moment that does not freeze."""

import pytest
import torch

from roslin.tune.adamw.moments import BLOCK, FIRST_TOP, SECOND_TOP, Kind, Moments
from roslin.tune.adamw.noise import bits_of, key_of

CPU = torch.device("cpu")
KINDS: list[Kind] = ["bf16", "8bit"]
STEP = {"bf16": 2**-7, "8bit": 2**-4}
"""The largest relative distance of two neighbours."""


def made(kind: Kind, first: torch.Tensor, second: torch.Tensor, step: int = 1) -> Moments:
    moments = Moments.zeros(kind, first)
    moments.write(first, second, bits_of(key_of(0, "x", step), 0, first.numel(), CPU))
    return moments


def floats_of_8_bits(exponents: int) -> list[float]:
    """Every magnitude of a float with a mantissa of four bits and gradual underflow, by the definition, ascending."""
    return [float(m) for m in range(16)] + [(16 + m) * 2.0**e for e in range(exponents - 1) for m in range(16)]


def test_codes_are_small_floats() -> None:
    firsts, seconds = floats_of_8_bits(8), floats_of_8_bits(16)
    assert (max(firsts), max(seconds)) == (FIRST_TOP, SECOND_TOP)
    first = torch.tensor([firsts, [-unit for unit in firsts]])
    second = torch.tensor([[1.0, *seconds[1:BLOCK]], seconds[BLOCK:]])
    second[0, 0] = SECOND_TOP  # the scale of both rows
    moments = made("8bit", first, second)
    assert moments.first[0].tolist() == list(range(128))
    assert moments.first[1, 1:].tolist() == list(range(129, 256))
    assert moments.second[:, 1:].tolist() == [list(range(1, 128)), list(range(129, 256))]
    for found, expected in zip(moments.read(), (first, second), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_are_taken_and_the_mean_is_right(kind: Kind) -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(4, 2 * BLOCK, generator=generator)
    second = torch.exp(2 * torch.randn(4, 2 * BLOCK, generator=generator))
    count = 2000
    sums = [torch.zeros_like(first, dtype=torch.float64) for _ in range(2)]
    for step in range(count):
        for total, found, exact in zip(sums, made(kind, first, second, step).read(), (first, second), strict=True):
            most = exact.abs().amax(1, keepdim=True)
            assert torch.all((found - exact).abs() <= STEP[kind] * exact.abs() + most * 2**-11)
            total.add_(found)
    for total, exact in zip(sums, (first, second), strict=True):
        spread = STEP[kind] * exact.abs() / 2 / count**0.5 + exact.abs().max() * 2**-11 / count**0.5
        assert torch.all((total / count - exact).abs() < 5 * spread)


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_moment_follows_gradients_at_the_slowest_beta(kind: Kind) -> None:
    """Kept for 2000 steps at beta2 = 0.999 it ends where fp32 does; rounded to the nearest bf16 it stands still."""
    first = torch.zeros(8, BLOCK)
    second = torch.ones(8, BLOCK)
    nearest = torch.ones(8, BLOCK, dtype=torch.bfloat16)
    moments = made(kind, first, second)
    for step in range(2000):
        _, kept = moments.read()
        moments.write(first, 0.999 * kept + 0.001 * 0.5, bits_of(key_of(1, "x", step), 0, second.numel(), CPU))
        second = 0.999 * second + 0.001 * 0.5
        nearest = (0.999 * nearest.float() + 0.001 * 0.5).bfloat16()
    assert float(second.mean()) == pytest.approx(0.5 + 0.5 * 0.999**2000, rel=1e-3)
    assert float(moments.read()[1].mean()) == pytest.approx(float(second.mean()), rel=0.02)
    assert torch.all(nearest == 1)


def test_small_second_moments_are_never_zero_and_never_read_too_small() -> None:
    second = torch.full((1, BLOCK), 1e-12)
    second[0, 5] = 1.0
    _, found = made("8bit", torch.zeros_like(second), second).read()
    assert torch.all(found >= second * (1 - 2**-4))
    assert float(found.max()) == pytest.approx(1.0, rel=1e-6)
    assert float(found.min()) == pytest.approx(1 / SECOND_TOP, rel=1e-6)


@pytest.mark.parametrize("size", [0.0, 1e-36, 1e30])
def test_blocks_of_any_size(size: float) -> None:
    """Nothing overflows on the way to a code, and a block of zeros is one of zeros."""
    exact = torch.full((1, BLOCK), size)
    for found in made("8bit", -exact, exact).read():
        torch.testing.assert_close(found.abs(), exact, rtol=1e-5, atol=1e-34)


def test_only_whole_blocks_of_matrices_are_kept_in_8_bits() -> None:
    kinds = {shape: Moments.zeros("8bit", torch.empty(shape)).kind for shape in [(4, 256), (4, 200), (256,)]}
    assert kinds == {(4, 256): "8bit", (4, 200): "fp32", (256,): "fp32"}


@pytest.mark.parametrize(("kind", "each"), [("fp32", 8), ("bf16", 4), ("8bit", 2 + 8 / BLOCK)])
def test_bytes_a_parameter(kind: Kind, each: float) -> None:
    moments = Moments.zeros(kind, torch.empty(16, 2 * BLOCK))
    assert sum(part.nbytes for part in moments.parts().values()) == each * 16 * 2 * BLOCK
    assert all(len(part) == 16 for part in moments.parts().values())
