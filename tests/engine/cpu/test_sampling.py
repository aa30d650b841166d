"""Draws by the C++ kernel, at every level of instructions, against the same draw in fp64 by sorting."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cpu_kernels import needs_kernels
from roslin.engine import Sampling
from roslin.engine.cpu.sampling import ALONE, CppDraw, log_sums
from roslin.engine.noise import exponentials, step_key, stream_key
from roslin.engine.sampler import HOTTEST, Sampler

pytestmark = [
    needs_kernels,
    pytest.mark.usefixtures("level"),
]


def exact(logits_V: torch.Tensor, sampling: Sampling, key: int, hair: float = 0.0) -> int:
    """The draw as it is defined, with a nucleus that is a hair wider."""
    far = (logits_V.double() - logits_V.double().max()) / sampling.temperature
    weights = far.exp().numpy()
    order = np.argsort(-weights, kind="stable")[: sampling.top_k or None]
    share = weights[order] / weights[order].sum()
    inside = order[np.cumsum(share) - share < (sampling.top_p if sampling.top_p < 1 else 2) + hair]
    noise = exponentials(torch.tensor([[key]]), torch.from_numpy(inside)[None])[0].numpy()
    return int(inside[np.argmax(weights[inside] / noise)])


def kernel(*samplings: Sampling) -> CppDraw:
    return CppDraw([s.temperature for s in samplings], [s.top_p for s in samplings], [s.top_k for s in samplings])


def key_of(seed: int) -> int:
    return step_key(stream_key(seed, 0, [1]), 0)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 1500),
    spread=st.floats(0.01, 12),
    top_p=st.floats(0.01, 1),
    top_k=st.one_of(st.just(0), st.integers(1, 2000)),
    temperature=st.floats(0.05, 4),
)
def test_they_are_the_draws_by_sorting(
    seed: int, count: int, spread: float, top_p: float, top_k: int, temperature: float
) -> None:
    """But where a token stands on the nucleus's edge to fp32's last places."""
    logits = spread * torch.randn(4, count, generator=torch.Generator().manual_seed(seed))
    sampling = Sampling(temperature, top_p, top_k)
    keys = [key_of(seed + row) for row in range(4)]
    found = kernel(*[sampling] * 4)(logits, keys).tolist()
    for row, key, token in zip(logits, keys, found, strict=True):
        assert token in {exact(row, sampling, key, hair) for hair in (0.0, 1e-5, -1e-5)}


@pytest.mark.parametrize("spread", [0.0, 0.1, 3.0, 100.0])
def test_a_large_vocabulary(spread: float) -> None:
    """Equal logits too, whose nucleus is the first ids; by several threads as by one."""
    logits = spread * torch.randn(16, 50_304, generator=torch.Generator().manual_seed(1))
    assert logits.numel() > ALONE
    kinds = [Sampling(), Sampling(1, 1, 0), Sampling(0.7, 0.5, 40), Sampling(0)]
    keys = [key_of(row) for row in range(16)]
    found = kernel(*kinds * 4)(logits, keys).tolist()
    alone = [kernel(kind)(row[None], [key]).item() for kind, row, key in zip(kinds * 4, logits, keys, strict=True)]
    assert found == alone
    for kind, row, key, token in zip(kinds * 4, logits, keys, found, strict=True):
        expected = row.argmax().item() if kind.greedy else exact(row, kind, key)
        assert token == expected or token in {exact(row, kind, key, hair) for hair in (1e-5, -1e-5)}


def test_rows_that_lie_apart() -> None:
    logits = torch.randn(3, 100)[:, :60]
    keys = [key_of(row) for row in range(3)]
    assert torch.equal(kernel(*[Sampling()] * 3)(logits, keys), kernel(*[Sampling()] * 3)(logits.clone(), keys))


@pytest.mark.parametrize("sampling", [Sampling(0), Sampling(), Sampling(1, 1, 0), Sampling(1, 0.5, 3)])
def test_logits_that_are_no_numbers_are_survived(sampling: Sampling) -> None:
    """Some id comes back: that its probability is none is found by whoever asks for that."""
    for bad in (torch.nan, torch.inf):
        for place in (0, 7, 39):
            logits = torch.randn(1, 40)
            logits[0, place] = bad
            assert 0 <= kernel(sampling)(logits, [1]).item() < 40
    assert 0 <= kernel(sampling)(torch.full((1, 40), torch.nan), [1]).item() < 40


@pytest.mark.parametrize("sampling", [Sampling(0), Sampling(), Sampling(1, 1, 0), Sampling(2, 0.999, 30)])
def test_what_is_ruled_out_is_not_drawn(sampling: Sampling) -> None:
    logits = torch.full((1, 40), -torch.inf)
    logits[0, [3, 17]] = torch.tensor([1.0, 0.5])
    found = {kernel(sampling)(logits, [key_of(seed)]).item() for seed in range(60)}
    assert found == ({3} if sampling.greedy else {3, 17})


def test_a_temperature_near_zero_is_greedy() -> None:
    logits = 20 * torch.randn(50, 300)
    for top_p in (0.9, 1.0):
        found = CppDraw([1e-6] * 50, [top_p] * 50, [0] * 50)(logits, [key_of(row) for row in range(50)])
        assert torch.equal(found, logits.argmax(-1))


@pytest.mark.parametrize("top_p", [0.3, 1.0])
def test_temperatures_that_level_all_weights(top_p: float) -> None:
    """The most probable tokens are found by their logits: their weights are all 1."""
    logits = torch.randn(40, 300)
    for temperature in (1e8, HOTTEST):
        found = CppDraw([temperature] * 40, [top_p] * 40, [5] * 40)(logits, [key_of(row) for row in range(40)])
        ranks = (logits > logits.gather(1, found[:, None])).sum(1)
        assert set(ranks.tolist()) == set(range(2 if top_p < 1 else 5))


@pytest.mark.parametrize("sampling", [Sampling(1e39, 1, 0), Sampling(1e39, 0.9, 0), Sampling(1, 1, 10**20)])
def test_settings_beyond_what_numbers_hold(sampling: Sampling) -> None:
    logits = torch.full((30, 20), -torch.inf)
    logits[:, [4, 9]] = torch.tensor([1.0, 0.5])
    found = Sampler([sampling] * 30, logits.device).choose(logits, range(30), [0] * 30)
    assert set(found.tolist()) == {4, 9}


def test_a_temperature_that_is_no_number_is_survived() -> None:
    logits = torch.randn(1, 40)
    logits[0, ::2] = -torch.inf
    for top_p in (0.9, 1.0):
        assert 0 <= CppDraw([torch.inf], [top_p], [0])(logits, [1]).item() < 40


@pytest.mark.parametrize("shape", [(1, 1), (3, 29), (16, 8192)])
def test_log_sums_are_torchs(shape: tuple[int, int]) -> None:
    """By several threads too, and of rows that lie apart."""
    logits = 5 * torch.randn(shape[0], shape[1] + 3, generator=torch.Generator().manual_seed(2))[:, : shape[1]]
    torch.testing.assert_close(log_sums(logits), logits.logsumexp(-1), rtol=1e-6, atol=2e-6)
    logits[0, 0] = torch.nan
    assert log_sums(logits).isnan().tolist() == [True] + [False] * (shape[0] - 1)
