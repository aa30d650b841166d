"""Draws against exact probabilities, with transformers' warpers as the oracle of what may be drawn."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TopKLogitsWarper, TopPLogitsWarper

from roslin.engine import Sampling
from roslin.engine import sampler as module
from roslin.engine.noise import exponentials, mix, step_key, step_keys, stream_key
from roslin.engine.sampler import Sampler

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["by the kernel, where it was built", "with tensors"], autouse=True)
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """How a CPU draws, and how a device without a kernel does."""
    with pytest.MonkeyPatch.context() as patched:
        if request.param == "with tensors":
            patched.setattr(module, "has_kernel", lambda device: False)
        yield


def warped(logits_V: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Probabilities as transformers has them."""
    scores = logits_V[None] / sampling.temperature
    if sampling.top_k:
        scores = TopKLogitsWarper(sampling.top_k)(None, scores)
    if sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(None, scores)
    return scores.softmax(-1)[0]


def draws(logits_V: torch.Tensor, sampling: Sampling, count: int) -> torch.Tensor:
    sampler = Sampler([sampling] * count, CPU)
    stream = stream_key(11, 0, [1, 2])
    return sampler.choose(logits_V.expand(count, -1), [stream] * count, range(count))


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(1.0, 1.0, 0),
        Sampling(1.0, 0.92, 0),
        Sampling(0.6, 0.8, 0),
        Sampling(1.7, 1.0, 9),
        Sampling(1.3, 0.7, 12),
        Sampling(1.0, 0.999, 0),
    ],
)
def test_draws_follow_the_exact_probabilities(sampling: Sampling) -> None:
    torch.manual_seed(3)
    logits_V = 1.5 * torch.randn(300)
    count = 60_000
    exact_V = warped(logits_V, sampling).double()
    seen_V = torch.bincount(draws(logits_V, sampling, count), minlength=300).double()
    assert not bool((seen_V[exact_V == 0] > 0).any())
    likely = exact_V * count >= 5
    expected = torch.cat([exact_V[likely], 1 - exact_V[likely].sum().clamp(max=1)[None]]) * count
    found = torch.cat([seen_V[likely], count - seen_V[likely].sum()[None]])
    chi_square = ((found - expected).square() / expected.clamp(min=1)).sum().item()
    freedom = int(likely.sum())
    # Six standard deviations above the mean of the chi-square distribution.
    assert chi_square < freedom + 6 * (2 * freedom) ** 0.5


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    spread=st.floats(0.05, 8),
    top_p=st.floats(0.01, 1),
    top_k=st.integers(0, 600),
    temperature=st.floats(0.1, 3),
)
def test_only_what_transformers_keeps_is_drawn(
    seed: int, spread: float, top_p: float, top_k: int, temperature: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits_V = spread * torch.randn(500, generator=generator)
    sampling = Sampling(temperature, top_p, top_k)
    # The token on the threshold may fall either way by rounding, so the oracle's threshold is a hair wider.
    allowed_V = warped(logits_V, Sampling(temperature, min(1.0, top_p + 1e-5), top_k)) > 0
    assert bool(allowed_V[draws(logits_V, sampling, 300)].all())


def test_the_nucleus_is_as_large_as_transformers_has_it() -> None:
    torch.manual_seed(0)
    logits_V = 0.1 * torch.randn(400)
    drawn = draws(logits_V, Sampling(1.0, 0.5, 0), 40_000).unique()
    assert len(drawn) == int((warped(logits_V, Sampling(1.0, 0.5, 0)) > 0).sum())


def test_rows_of_all_kinds_share_a_batch_and_draw_what_they_draw_alone() -> None:
    torch.manual_seed(1)
    logits_BV = 2 * torch.randn(6, 700)
    kinds = [Sampling(0), Sampling(), Sampling(1, 1, 0), Sampling(0.5, 1, 3), Sampling(2, 0.99, 0), Sampling(0)]
    streams = [stream_key(5, n, [1]) for n in range(6)]
    for step in range(20):
        together = Sampler(kinds, CPU).choose(logits_BV, streams, [step] * 6).tolist()
        rows = zip(kinds, logits_BV.split(1), streams, strict=True)
        alone = [Sampler([kind], CPU).choose(row, [stream], [step]).item() for kind, row, stream in rows]
        assert together == alone


@pytest.mark.parametrize("temperature", [1e-300, 1e-5])
def test_a_temperature_near_zero_is_greedy(temperature: float) -> None:
    torch.manual_seed(1)
    logits_V = 20 * torch.randn(300)
    for top_p in (0.9, 1.0):
        assert draws(logits_V, Sampling(temperature, top_p), 50).unique().tolist() == [logits_V.argmax().item()]


def test_noise_is_the_hash_it_says_it_is() -> None:
    """The tensor arithmetic against the same function in Python's integers."""
    key = step_key(stream_key(123, 2, [4]), 9)
    ids = [0, 1, 77, 50_279, 2**40]
    found = exponentials(torch.tensor([[key]]), torch.tensor([ids]))[0]
    bits = [mix(id * 0x9E3779B97F4A7C15 + key) for id in ids]
    expected = -torch.log((torch.tensor([b >> 12 for b in bits]).double() + 0.5) * 2.0**-52)
    assert torch.equal(found, expected)
    # SplitMix64's published first output for the seed 1234567.
    assert mix(1234567 + 0x9E3779B97F4A7C15) == 6457827717110365317


def test_noise_has_the_mean_and_variance_of_the_exponential_distribution() -> None:
    keys = torch.tensor([[step_key(stream_key(seed, 0, [1]), 0)] for seed in range(300)])
    noise = exponentials(keys, torch.arange(1000)[None])
    assert noise.mean().item() == pytest.approx(1, abs=0.01)
    assert noise.var().item() == pytest.approx(1, abs=0.03)
    assert torch.corrcoef(noise[:, :50].T).fill_diagonal_(0).abs().max().item() < 0.3


def test_keys_of_many_steps_are_those_of_each() -> None:
    streams, steps = [0, 7, (1 << 64) - 1, stream_key(3, 1, [5, 9])], [0, 1, 4000, 17]
    found = step_keys(np.array(streams, dtype=np.uint64), np.array(steps))
    assert found.tolist() == [step_key(stream, step) for stream, step in zip(streams, steps, strict=True)]
