"""One tensor's step in plain torch, against torch's AdamW in fp32."""

import pytest
import torch

from roslin.tune.adamw import plain
from roslin.tune.adamw.moments import Kind, Moments
from roslin.tune.adamw.noise import key_of
from roslin.tune.adamw.plain import Held, Step
from roslin.tune.adamw.split import join, split

BETAS, EPSILON, DECAY = (0.9, 0.999), 1e-8, 0.1


def held(exact: torch.Tensor, kind: Kind, dtype: torch.dtype = torch.bfloat16) -> Held:
    weight, low = (exact.clone(), None) if dtype == torch.float32 else split(exact, dtype)
    return Held(weight, low, Moments.zeros(kind, exact))


def exact_of(tensor: Held) -> torch.Tensor:
    return tensor.weight if tensor.low is None else join(tensor.weight, tensor.low)


def told(number: int, rate: float = 1e-3) -> Step:
    return Step(rate, BETAS, EPSILON, DECAY, number, key_of(0, "x", number))


def gradients(shape: tuple[int, ...], count: int) -> list[torch.Tensor]:
    """Of unlike sizes, element by element and step by step."""
    generator = torch.Generator().manual_seed(2)
    size = torch.exp(torch.randn(shape, generator=generator)) * 1e-3
    return [(size * torch.randn(shape, generator=generator)).bfloat16() for _ in range(count)]


@pytest.mark.parametrize("shape", [(40, 384), (7, 5), (300,), (3, 2**17)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_with_fp32_moments_it_is_torchs_adamw_on_fp32_weights(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """To rounding, over many steps: torch's plain formula, not the fused one that `plain` itself calls."""
    exact = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    ours, peer = held(exact, "fp32", dtype), torch.nn.Parameter(exact.clone())
    adamw = torch.optim.AdamW([peer], lr=1e-3, betas=BETAS, eps=EPSILON, weight_decay=DECAY, foreach=False)
    steps = 100 if exact.numel() < 2**17 else 3
    for number, gradient in enumerate(gradients(shape, steps), 1):
        peer.grad = 0.7 * gradient.float()
        adamw.step()
        plain.step(ours, gradient, torch.tensor(0.7), told(number))
    torch.testing.assert_close(exact_of(ours), peer.data, rtol=2e-7 * steps**0.5, atol=1e-9 * steps)
    if dtype != torch.float32:
        assert torch.equal(ours.weight, split(exact_of(ours), dtype)[0])


@pytest.mark.parametrize(("kind", "bound"), [("bf16", 0.02), ("8bit", 0.1)])
def test_fewer_bits_stay_near(kind: Kind, bound: float) -> None:
    """How far weights have gone, compared with how far fp32 moments would have taken them."""
    shape = (16, 256)
    exact = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    few, many = held(exact, kind), held(exact, "fp32")
    for number, gradient in enumerate(gradients(shape, 200), 1):
        for tensor in (few, many):
            plain.step(tensor, gradient, torch.tensor(1.0), told(number))
    away = (exact_of(few) - exact_of(many)).norm() / (exact_of(many) - exact).norm()
    assert away < bound


def test_nan_for_a_factor_leaves_all_alone() -> None:
    ours = held(torch.randn(4, 256), "8bit")
    [gradient] = gradients((4, 256), 1)
    plain.step(ours, gradient, torch.tensor(1.0), told(1))
    before = [tensor.clone() for tensor in (exact_of(ours), *ours.moments.parts().values())]
    plain.step(ours, gradient * torch.nan, torch.tensor(torch.nan), told(2))
    after = [exact_of(ours), *ours.moments.parts().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_part_of_a_tensor_steps_as_the_whole_does() -> None:
    """Random bits are those of the element's number in the whole parameter."""
    exact = torch.randn(12, 256, generator=torch.Generator().manual_seed(3))
    whole = held(exact, "8bit")
    parts = [held(exact[:5].clone(), "8bit"), held(exact[5:].clone(), "8bit")]
    parts[1] = Held(parts[1].weight, parts[1].low, parts[1].moments, first=5 * 256)
    for number, gradient in enumerate(gradients((12, 256), 3), 1):
        plain.step(whole, gradient, torch.tensor(1.0), told(number))
        for part, rows in zip(parts, (slice(0, 5), slice(5, 12)), strict=True):
            plain.step(part, gradient[rows], torch.tensor(1.0), told(number))
    assert torch.equal(exact_of(whole), torch.cat([exact_of(part) for part in parts]))
