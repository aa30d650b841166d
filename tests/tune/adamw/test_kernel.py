"""The Triton kernel in Triton's interpreter, against the plain step."""

import pytest
import torch

from roslin.tune.adamw import plain
from roslin.tune.adamw.moments import Kind, Moments
from roslin.tune.adamw.noise import key_of
from roslin.tune.adamw.plain import Held, Step
from roslin.tune.adamw.split import join, split

kernel = pytest.importorskip("roslin.tune.adamw.kernel", exc_type=ImportError)


def held(shape: tuple[int, ...], dtype: torch.dtype, kind: Kind, *, fast: bool = False, first: int = 0) -> Held:
    exact = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    weight, low = (exact, None) if dtype == torch.float32 else split(exact, dtype)
    rates = torch.where(torch.arange(shape[0]) == 1, 5.0, 1.0) if fast else None
    return Held(weight, low, Moments.zeros(kind, exact), rates, first)


def exact_of(tensor: Held) -> torch.Tensor:
    return tensor.weight if tensor.low is None else join(tensor.weight, tensor.low)


@pytest.mark.parametrize("shape", [(17, 256), (5,), (3, 700)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("kind", ["fp32", "bf16", "8bit"])
@pytest.mark.parametrize("fast", [False, True])
def test_it_does_what_the_plain_step_does(shape: tuple[int, ...], dtype: torch.dtype, kind: Kind, fast: bool) -> None:
    """The same codes and random bits; what is in fp32 differs by roundings, for the order of products is another."""
    ours, peer = (held(shape, dtype, kind, fast=fast, first=640) for _ in range(2))
    generator = torch.Generator().manual_seed(2)
    for number in range(1, 5):
        gradient = (torch.randn(shape, generator=generator) * torch.rand(shape, generator=generator) ** 6).to(dtype)
        told = Step(1e-2, (0.9, 0.999), 1e-8, 0.1, number, key_of(0, "x", number))
        kernel.step(ours, gradient, torch.tensor(0.7), told)
        plain.step(peer, gradient, torch.tensor(0.7), told)
    torch.testing.assert_close(exact_of(ours), exact_of(peer), rtol=1e-6, atol=1e-6)
    for name, found in ours.moments.parts().items():
        expected = peer.moments.parts()[name]
        if found.dtype == torch.float32:
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)
        else:
            assert (found != expected).sum() <= 1e-3 * found.numel()  # an ulp may lie where the random bits cut


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_takes_weights_apart_as_the_plain_step_does(dtype: torch.dtype) -> None:
    """Of all sizes, those below fp16's equal steps too, and halfway between two; a rate of zero changes none."""
    sizes = 2.0 ** torch.arange(-30, 14).repeat_interleave(128).view(44, 128)
    exact = torch.randn(44, 128, generator=torch.Generator().manual_seed(1)) * sizes
    exact[:, :8] = (exact[:, :8].half().float().view(torch.int32) + 0x1000).view(torch.float32)
    pair = [Held(*split(exact, dtype), Moments.zeros("fp32", exact)) for _ in range(2)]
    told = Step(0.0, (0.9, 0.999), 1e-8, 0.0, 1, 0)
    for step, tensor in zip((kernel.step, plain.step), pair, strict=True):
        step(tensor, torch.zeros(44, 128), torch.tensor(1.0), told)
        assert torch.equal(tensor.weight, split(exact, dtype)[0])
        assert torch.equal(tensor.low, split(exact, dtype)[1])


def test_nan_for_a_factor_leaves_all_alone() -> None:
    ours, peer = (held((4, 256), torch.bfloat16, "8bit") for _ in range(2))
    told = Step(1e-2, (0.9, 0.999), 1e-8, 0.1, 1, 0)
    kernel.step(ours, torch.ones(4, 256), torch.tensor(torch.nan), told)
    assert torch.equal(exact_of(ours), exact_of(peer))
    assert not any(part.any() for part in ours.moments.parts().values())


def test_every_code_is_read_as_the_plain_step_reads_it() -> None:
    """All 256 codes of both moments, under scales of very unlike sizes, with no gradient and betas that keep them."""
    codes = torch.arange(256, dtype=torch.uint8).view(2, 128).repeat(3, 1)
    scales = torch.tensor([1e-12, 1.0, 1e12]).repeat_interleave(2)[:, None]
    pair = []
    for step in (kernel.step, plain.step):
        moments = Moments("8bit", codes.clone(), codes.clone(), scales.sqrt(), scales.clone())
        tensor = Held(torch.zeros(6, 128), None, moments)
        step(tensor, torch.zeros(6, 128), torch.tensor(1.0), Step(1.0, (0.5, 0.5), 1e-30, 0.0, 1, 0))
        pair.append(tensor.weight)
    torch.testing.assert_close(pair[0], pair[1], rtol=1e-5, atol=0)
    assert pair[0].isfinite().all()
