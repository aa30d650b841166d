"""Updates that are exact in fp32, against torch's AdamW in fp32."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from roslin.tune.adamw.moments import Kind
from roslin.tune.adamw.split import split
from roslin.tune.optimizer import MasterAdamW

SETTINGS = {"betas": (0.9, 0.99), "epsilon": 1e-8, "weight_decay": 0.1}
KINDS: list[Kind] = ["fp32", "bf16", "8bit"]


def model(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)


def wide_model(dtype: torch.dtype) -> nn.Module:
    """One whose matrices have whole blocks of 128."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(128, 256), nn.Tanh(), nn.Linear(256, 3)).to(dtype)


def masters(optimizer: MasterAdamW) -> dict[str, torch.Tensor]:
    return {name: optimizer.master(name).clone() for name in optimizer.parameters}


def give_gradients(net: nn.Module, value: float) -> None:
    """A backward pass whose gradient is `value` everywhere."""
    torch.stack([(parameter * value).sum() for parameter in net.parameters()]).sum().backward()


def steps(net: nn.Module, optimizer: MasterAdamW, count: int, seed: int = 1, *, in_backward: bool = False) -> None:
    generator = torch.Generator().manual_seed(seed)
    first = next(net.parameters())
    for _ in range(count):
        inputs = torch.randn(4, first.shape[1], generator=generator).to(first.dtype)
        if in_backward:
            optimizer.begin(1e-2)
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
    start = masters(optimizer)
    for _ in range(50):
        give_gradients(net, 1.0)
        optimizer.update(1e-5, None)
    for name, parameter in net.named_parameters():
        # AdamW with a constant gradient moves by the learning rate each time: 50 × 1e-5, far below bf16's spacing.
        master = optimizer.master(name)
        torch.testing.assert_close(start[name] - master, torch.full_like(start[name], 5e-4), rtol=1e-2, atol=1e-6)
        assert torch.equal(parameter, master.bfloat16())


def test_passes_add_up_in_fp32() -> None:
    net = model(torch.bfloat16)
    optimizer = MasterAdamW(net, **SETTINGS)
    for value in (1.0, 2**-9, 2**-9):  # in bf16, 1 + 2**-9 is 1
        give_gradients(net, value)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert optimizer.sums.keys() == dict(net.named_parameters()).keys()
    assert all(torch.all(total == 1 + 2**-8) for total in optimizer.sums.values())


def test_passes_add_up_in_bf16_where_asked() -> None:
    """They are in the parameters' own gradients, and an update is that of those gradients."""
    net, peer = model(torch.bfloat16), model(torch.bfloat16)
    optimizer = MasterAdamW(net, **SETTINGS, gradients="bf16")
    give_gradients(net, 1.0)
    give_gradients(net, 0.5)
    assert not optimizer.sums
    assert all(torch.all(parameter.grad == 1.5) for parameter in net.parameters())
    other = MasterAdamW(peer, **SETTINGS)
    give_gradients(peer, 1.5)
    assert optimizer.update(1e-2, 1.0) == pytest.approx(other.update(1e-2, 1.0))
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(optimizer.master(name), other.master(name)) for name in optimizer.parameters)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_clipping_and_its_norm(dtype: torch.dtype) -> None:
    """AdamW's first step hides a gradient's size behind its sign; epsilon as large as the clipped gradient shows it."""
    net, peer = model(dtype), model(dtype).float()
    optimizer = MasterAdamW(net, betas=(0.9, 0.99), epsilon=1.0, weight_decay=0.0)
    give_gradients(net, 2.0)
    count = sum(p.numel() for p in net.parameters())
    assert optimizer.update(1e-1, 1.0) == pytest.approx(2 * count**0.5)
    adamw = torch.optim.AdamW(peer.parameters(), lr=1e-1, betas=(0.9, 0.99), eps=1.0, weight_decay=0.0)
    give_gradients(peer, 2.0)
    torch.nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
    adamw.step()
    for name, theirs in peer.named_parameters():
        torch.testing.assert_close(optimizer.master(name), theirs.detach(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_gradient_that_is_not_finite_changes_nothing(dtype: torch.dtype, kind: Kind) -> None:
    """Not even how many steps there have been: what follows is what would have followed without it."""
    net, peer = wide_model(dtype), wide_model(dtype)
    optimizer, other = (MasterAdamW(each, **SETTINGS, moments=kind) for each in (net, peer))
    steps(net, optimizer, 2)
    steps(peer, other, 2)
    give_gradients(net, float("nan"))
    assert math.isnan(optimizer.update(1e-3, 1.0))
    steps(net, optimizer, 2, seed=5)
    steps(peer, other, 2, seed=5)
    assert all(torch.equal(optimizer.master(name), other.master(name)) for name in optimizer.parameters)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("more", [{}, {"gradients": "bf16"}, {"in_backward": True}])
def test_saved_and_loaded_it_goes_on_bit_for_bit(dtype: torch.dtype, kind: Kind, more: Mapping[str, Any]) -> None:
    at_once = more.get("in_backward", False)
    straight = wide_model(dtype)
    optimizer = MasterAdamW(straight, **SETTINGS, moments=kind, seed=3, **more)
    steps(straight, optimizer, 5, in_backward=at_once)
    saved = {k: v.clone() for k, v in optimizer.state().items()}
    weights = {k: v.clone() for k, v in optimizer.weights().items()}
    steps(straight, optimizer, 5, seed=2, in_backward=at_once)

    resumed = wide_model(dtype)
    resumed.load_state_dict(weights)
    again = MasterAdamW(resumed, **SETTINGS, moments=kind, seed=3, **more)
    again.load_state(saved)
    steps(resumed, again, 5, seed=2, in_backward=at_once)
    assert all(torch.equal(again.master(name), optimizer.master(name)) for name in again.parameters)
    assert all(torch.equal(value, again.state()[key]) for key, value in optimizer.state().items())


def test_the_seed_decides_how_moments_are_rounded() -> None:
    found = []
    for seed in (0, 0, 1):
        net = wide_model(torch.bfloat16)
        optimizer = MasterAdamW(net, **SETTINGS, moments="8bit", seed=seed)
        steps(net, optimizer, 3)
        found.append(optimizer.master("0.weight"))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_in_the_backward_pass_are_the_same_steps(dtype: torch.dtype, kind: Kind) -> None:
    net, peer = wide_model(dtype), wide_model(dtype)
    optimizer = MasterAdamW(net, **SETTINGS, moments=kind, in_backward=True)
    other = MasterAdamW(peer, **SETTINGS, moments=kind, gradients="bf16")
    for seed in range(4):
        inputs = torch.randn(4, 128, generator=torch.Generator().manual_seed(seed)).to(dtype)
        optimizer.begin(1e-2)
        for each in (net, peer):
            each(inputs).float().square().sum().backward()
        assert all(parameter.grad is None for parameter in net.parameters())
        assert optimizer.update(1e-2, None) == pytest.approx(other.update(1e-2, None))
    assert all(torch.equal(optimizer.master(name), other.master(name)) for name in optimizer.parameters)


def test_in_the_backward_pass_a_tensor_whose_gradient_is_not_finite_is_left_alone() -> None:
    net = wide_model(torch.bfloat16)
    optimizer = MasterAdamW(net, **SETTINGS, moments="8bit", in_backward=True)
    steps(net, optimizer, 1, in_backward=True)
    before, state = masters(optimizer), {key: value.clone() for key, value in optimizer.state().items()}
    optimizer.begin(1e-2)
    (net[0].weight.sum() * math.inf + net[2].weight.sum()).backward()
    assert not math.isfinite(optimizer.update(1e-2, None))
    assert torch.equal(optimizer.master("0.weight"), before["0.weight"])
    assert all(torch.equal(value, state[key]) for key, value in optimizer.state().items() if key.startswith("0.weight"))
    assert not torch.equal(optimizer.master("2.weight"), before["2.weight"])


def test_in_the_backward_pass_a_second_pass_is_refused() -> None:
    net = model(torch.bfloat16)
    optimizer = MasterAdamW(net, **SETTINGS, in_backward=True)
    with pytest.raises(RuntimeError, match="begin"):
        give_gradients(net, 1.0)
    optimizer.begin(1e-2)
    net.zero_grad()
    give_gradients(net, 1.0)
    with pytest.raises(RuntimeError, match="one backward pass"):
        give_gradients(net, 1.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_fast_rows_learn_at_a_multiple_of_the_rate(dtype: torch.dtype, kind: Kind) -> None:
    """Equal to torch's AdamW at the higher rate on those rows, and at the plain rate on the others."""
    net, plain, fast = wide_model(dtype), wide_model(dtype).float(), wide_model(dtype).float()
    optimizer = MasterAdamW(net, **SETTINGS, moments=kind, fast_rows={"2.weight": [1]}, fast_factor=5.0)
    peers = [
        (peer, torch.optim.AdamW(peer.parameters(), lr=rate, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1))
        for peer, rate in ((plain, 1e-3), (fast, 5e-3))
    ]
    generator = torch.Generator().manual_seed(3)
    gradients = [torch.randn(p.shape, generator=generator).to(dtype) for p in net.parameters()]
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        parameter.grad = gradient.clone()
    optimizer.update(1e-3, None)
    for peer, adamw in peers:
        for parameter, gradient in zip(peer.parameters(), gradients, strict=True):
            parameter.grad = gradient.float()
        adamw.step()
    ours = optimizer.master("2.weight")
    slow_rows, fast_rows = (dict(m.named_parameters())["2.weight"].detach() for m in (plain, fast))
    torch.testing.assert_close(ours[1], fast_rows[1], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(ours[[0, 2]], slow_rows[[0, 2]], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(optimizer.master("0.weight"), plain[0].weight.detach(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_scaled_gradients_make_the_same_step(clip_norm: float | None) -> None:
    """Their norm is that of gradients without the scale, and so is what is clipped."""
    net, peer = model(torch.float16), model(torch.float16)
    optimizer, other = MasterAdamW(net, **SETTINGS), MasterAdamW(peer, **SETTINGS)
    for value in (0.5, 3.0):
        give_gradients(net, value * 1024)
        give_gradients(peer, value)
        norms = optimizer.update(1e-2, clip_norm, 1024.0), other.update(1e-2, clip_norm)
        assert norms[0] == pytest.approx(norms[1])
    for name in optimizer.parameters:
        torch.testing.assert_close(optimizer.master(name), other.master(name), rtol=1e-6, atol=1e-9)


def test_exact_weights_take_the_place_of_both_halves() -> None:
    net = model(torch.bfloat16)
    optimizer = MasterAdamW(net, **SETTINGS)
    steps(net, optimizer, 3)
    before = masters(optimizer)
    optimizer.become_exact()
    for name, parameter in net.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, before[name])
        assert torch.equal(optimizer.master(name), before[name])


def test_low_halves_come_with_a_model_that_was_finer() -> None:
    finer, net = model(torch.float32), model(torch.bfloat16)
    low = {}
    for (name, exact), parameter in zip(finer.named_parameters(), net.parameters(), strict=True):
        parameter.data, low[name] = split(exact.detach())
    optimizer = MasterAdamW(net, **SETTINGS, low=low)
    for name, exact in finer.named_parameters():
        assert torch.equal(optimizer.master(name), exact)
