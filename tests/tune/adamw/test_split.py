"""Halves of fp32 numbers, over every kind of bit pattern."""

import pytest
import torch

from roslin.tune.adamw.split import join, split

SPECIAL = [
    0x00000000,  # 0
    0x00000001,  # the least denormal
    0x00007FFF,
    0x00008000,  # halfway between two bf16 denormals
    0x007FFFFF,  # the largest denormal
    0x00800000,
    0x3F800000,  # 1
    0x3F807FFF,
    0x3F808000,  # halfway, where torch rounds to even and this away from zero
    0x3F818000,
    0x3FFFFFFF,  # rounds into the next binade
    0x7F7F0000,  # bf16's largest
    0x7F7F7FFF,  # the last one that rounds to it
    0x7F7F8000,  # the first one that rounds to infinity
    0x7F7FFFFF,  # fp32's largest
]


def numbers(patterns: torch.Tensor) -> torch.Tensor:
    """fp32 numbers of bit patterns, in both signs."""
    both = torch.cat([patterns, patterns | 0x80000000])
    return ((both + 2**31) % 2**32 - 2**31).to(torch.int32).view(torch.float32)


def finite(count: int) -> torch.Tensor:
    found = numbers(torch.randint(0, 2**31, (count,), generator=torch.Generator().manual_seed(0)))
    return found[found.isfinite()]


def test_every_sixteen_bits_above_and_below() -> None:
    """All high halves with some lows, all lows with some highs, and a million at random."""
    lows, highs = torch.arange(2**16), torch.arange(2**15) << 16
    patterns = [lows | high << 16 for high in (0, 1, 0x7F, 0x3F80, 0x3FFF, 0x7F7E, 0x7F7F)]
    patterns += [highs | low for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)]
    for exact in (*map(numbers, patterns), finite(1_000_000)):
        exact = exact[exact.isfinite()]  # noqa: PLW2901
        assert torch.equal(join(*split(exact)).view(torch.int32), exact.view(torch.int32))


def test_the_upper_half_is_the_nearest_bf16() -> None:
    """As torch rounds, except at ties, which go away from zero."""
    exact = torch.cat([numbers(torch.tensor(SPECIAL)), finite(100_000)])
    high, _ = split(exact)
    tie = (exact.view(torch.int32) & 0xFFFF) == 0x8000
    assert torch.equal(high[~tie], exact[~tie].bfloat16())
    assert torch.all(high[tie].float().abs() > exact[tie].abs())
    assert tie.any()


@pytest.mark.parametrize("pattern", SPECIAL)
def test_special_numbers_come_back(pattern: int) -> None:
    exact = numbers(torch.tensor([pattern]))
    high, low = split(exact)
    assert (high.dtype, low.dtype) == (torch.bfloat16, torch.int16)
    assert torch.equal(join(high, low).view(torch.int32), exact.view(torch.int32))


FP16_PATTERNS = torch.arange(2**15 - 2**10, dtype=torch.int32)
"""Of every finite fp16 number that is not negative."""


def test_fp16_halves_are_exact_down_to_small_weights() -> None:
    """Every fp16 number, and fp32 numbers on either side of it as far as its halfway points; both signs."""
    steps = FP16_PATTERNS.to(torch.int16).view(torch.float16).float()
    shares = torch.tensor([-0.5, -0.4999999, -0.37, -1e-4, 0.0, 1e-7, 0.25, 0.4999, 0.5])
    place = torch.cat([(steps[1:] - steps[:-1]), torch.tensor([32.0])])
    exact = (steps[:, None] + shares * place[:, None]).flatten()
    exact = torch.cat([exact, -exact, finite(1_000_000)])
    exact = exact[exact.abs() < 65_520]
    high, low = split(exact, torch.float16)
    assert torch.equal(high, exact.half())
    assert low.abs().max() <= 2**14
    back = join(high, low)
    whole = exact.abs() >= 2.0**-16
    assert whole.sum() > 1e5
    assert torch.equal(back[whole], exact[whole])
    assert (back - exact)[~whole].abs().max() <= 2.0**-40


def test_an_fp16_number_is_its_own_upper_half() -> None:
    every = FP16_PATTERNS.to(torch.int16).view(torch.float16)
    high, low = split(every.float(), torch.float16)
    assert torch.equal(high, every)
    assert not low.any()
    assert torch.equal(join(high, low), every.float())


def test_what_is_beyond_fp16_is_infinite() -> None:
    high, low = split(torch.tensor([65_520.0, -1e30]), torch.float16)
    assert high.tolist() == [torch.inf, -torch.inf]
    assert not join(high, low).isfinite().any()


def test_a_bf16_number_is_its_own_upper_half() -> None:
    exact = torch.randn(1000, generator=torch.Generator().manual_seed(1)).bfloat16()
    high, low = split(exact.float())
    assert torch.equal(high, exact)
    assert not low.any()
