"""Updates on fp32 masters, against torch's AdamW in fp32."""

import math

import pytest
import torch
from torch import nn

from roslin.tune.optimizer import MasterAdamW

SETTINGS = {"betas": (0.9, 0.99), "epsilon": 1e-8, "weight_decay": 0.1}


def model(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)


def give_gradients(net: nn.Module, value: float) -> None:
    """A backward pass whose gradient is `value` everywhere."""
    torch.stack([(parameter * value).sum() for parameter in net.parameters()]).sum().backward()


def steps(net: nn.Module, optimizer: MasterAdamW, count: int, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        inputs = torch.randn(4, 6, generator=generator).to(next(net.parameters()).dtype)
        net(inputs).float().square().sum().backward()
        optimizer.update(1e-2, None)


def test_fp32_equals_torch() -> None:
    net, peer = model(torch.float32), model(torch.float32)
    adamw = torch.optim.AdamW(peer.parameters(), lr=1e-2, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
    steps(net, MasterAdamW(net, **SETTINGS), 20)
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        peer(torch.randn(4, 6, generator=generator)).square().sum().backward()
        adamw.step()
        adamw.zero_grad()
    for ours, theirs in zip(net.parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_bf16_weights_are_the_rounded_masters_and_small_updates_are_not_lost() -> None:
    net = model(torch.bfloat16)
    optimizer = MasterAdamW(net, **SETTINGS | {"weight_decay": 0.0})
    start = {name: master.clone() for name, master in optimizer.masters.items()}
    for _ in range(50):
        give_gradients(net, 1.0)
        optimizer.update(1e-5, None)
    for name, parameter in net.named_parameters():
        # AdamW with a constant gradient moves by the learning rate each time: 50 × 1e-5, far below bf16's spacing.
        torch.testing.assert_close(
            start[name] - optimizer.masters[name], torch.full_like(start[name], 5e-4), rtol=1e-2, atol=1e-6
        )
        assert torch.equal(parameter, optimizer.masters[name].bfloat16())


def test_passes_add_up_in_fp32() -> None:
    net = model(torch.bfloat16)
    optimizer = MasterAdamW(net, **SETTINGS)
    for value in (1.0, 2**-9, 2**-9):  # in bf16, 1 + 2**-9 is 1
        give_gradients(net, value)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(torch.all(master.grad == 1 + 2**-8) for master in optimizer.masters.values())


def test_clipping_and_its_norm() -> None:
    """AdamW's first step hides a gradient's size behind its sign; epsilon as large as the clipped gradient shows it."""
    net, peer = model(torch.float32), model(torch.float32)
    optimizer = MasterAdamW(net, betas=(0.9, 0.99), epsilon=1.0, weight_decay=0.0)
    give_gradients(net, 2.0)
    count = sum(p.numel() for p in net.parameters())
    assert optimizer.update(1e-1, 1.0) == pytest.approx(2 * count**0.5)
    adamw = torch.optim.AdamW(peer.parameters(), lr=1e-1, betas=(0.9, 0.99), eps=1.0, weight_decay=0.0)
    give_gradients(peer, 2.0)
    torch.nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
    adamw.step()
    for ours, theirs in zip(net.parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    net = model(torch.float32)
    optimizer = MasterAdamW(net, **SETTINGS)
    before = [p.clone() for p in net.parameters()]
    give_gradients(net, float("nan"))
    assert math.isnan(optimizer.update(1e-3, 1.0))
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_and_loaded_it_goes_on_bit_for_bit(dtype: torch.dtype) -> None:
    straight = model(dtype)
    optimizer = MasterAdamW(straight, **SETTINGS)
    steps(straight, optimizer, 5)
    saved = {k: v.clone() for k, v in optimizer.state().items()}
    masters = {k: v.detach().clone() for k, v in optimizer.masters.items()}
    steps(straight, optimizer, 5, seed=2)

    resumed = model(dtype)
    again = MasterAdamW(resumed, **SETTINGS, masters=masters)
    again.load_state(saved)
    steps(resumed, again, 5, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


def test_fast_rows_learn_at_a_multiple_of_the_rate() -> None:
    """Equal to torch's AdamW at the higher rate on those rows, and at the plain rate on the others."""
    net, plain, fast = (model(torch.float32) for _ in range(3))
    optimizer = MasterAdamW(net, **SETTINGS, fast_rows={"2.weight": [1]}, fast_factor=5.0)
    peers = [
        (peer, torch.optim.AdamW(peer.parameters(), lr=rate, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1))
        for peer, rate in ((plain, 1e-3), (fast, 5e-3))
    ]
    generator = torch.Generator().manual_seed(3)
    gradients = [torch.randn(p.shape, generator=generator) for p in net.parameters()]
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        parameter.grad = gradient.clone()
    optimizer.update(1e-3, None)
    for peer, adamw in peers:
        for parameter, gradient in zip(peer.parameters(), gradients, strict=True):
            parameter.grad = gradient.clone()
        adamw.step()
    ours, slow_rows, fast_rows = (dict(m.named_parameters())["2.weight"] for m in (net, plain, fast))
    torch.testing.assert_close(ours[1], fast_rows[1], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(ours[[0, 2]], slow_rows[[0, 2]], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(net[0].weight, plain[0].weight, rtol=1e-5, atol=1e-7)
