"""The kernel that draws, in Triton's interpreter, against the plain sampler."""

import pytest
import torch

pytest.importorskip("triton")

from roslin.engine import GREEDY, Sampling
from roslin.engine.gpu import choice
from roslin.engine.gpu.choice import choose, limits_of
from roslin.engine.noise import step_key
from roslin.engine.sampler import Sampler

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WAYS = [
    GREEDY,
    Sampling(1.0, 1.0),
    Sampling(0.7, 0.92),
    Sampling(1.3, 0.5, 7),
    Sampling(2.0, 1.0, 3),
    Sampling(1.0, 1.0, 1),
    Sampling(1e-9, 0.9),
    Sampling(1.0, 0.01),
    Sampling(3.0, 0.999, 40),
]


def drawn(
    logits_BV: torch.Tensor, vocabulary: int, ways: list[Sampling] | None, keys: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.full((len(logits_BV),), -1, dtype=torch.int64, device=DEVICE)
    logprobs = torch.zeros(len(logits_BV), device=DEVICE)
    draws = None
    if ways is not None:
        limits = torch.from_numpy(limits_of(ways)).to(DEVICE)
        draws = torch.tensor(keys, device=DEVICE), limits
    choose(logits_BV, vocabulary, draws, ids, logprobs)
    return ids, logprobs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("vocabulary", "rows", "spread"),
    [
        (61, 64, 1.0),
        pytest.param(300, 304, 4.0, marks=pytest.mark.full),
        pytest.param(300, 300, 0.1, marks=pytest.mark.full),
    ],
)
def test_it_draws_what_the_sampler_draws(dtype: torch.dtype, vocabulary: int, rows: int, spread: float) -> None:
    """In blocks of fewer numbers than a row has; log-probabilities are among all rows of the head."""
    generator = torch.Generator().manual_seed(rows)
    for step in range(3):
        # Numbers of a row all differ, also in 16 bits: those that are level are counted otherwise.
        ranks = torch.stack([torch.randperm(rows, generator=generator) for _ in WAYS])
        logits = (spread * (ranks / 37 - 4)).to(dtype).to(DEVICE)
        streams = [11 * row + 5 for row in range(len(WAYS))]
        keys = [step_key(stream, step) for stream in streams]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(choice, "BLOCK", 64)
            ids, logprobs = drawn(logits, vocabulary, WAYS, keys)
        expected = Sampler(WAYS, DEVICE).choose(logits.float()[:, :vocabulary], streams, [step] * len(WAYS))
        assert ids.tolist() == expected.tolist()
        every = logits.float().log_softmax(-1).gather(-1, expected[:, None])[:, 0]
        torch.testing.assert_close(logprobs, every, atol=2e-5, rtol=1e-5)


def test_the_best_alone_needs_no_keys() -> None:
    logits = torch.randn(4, 90, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    logits[2, 80:] = 50  # rows that pad the head
    ids, logprobs = drawn(logits, 80, None, [])
    assert ids.tolist() == logits[:, :80].argmax(-1).tolist()
    torch.testing.assert_close(logprobs, logits.log_softmax(-1).gather(-1, ids[:, None])[:, 0])


@pytest.mark.full
def test_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -3.0, float("-inf"), 0.5, 9.0, 9.0]).to(DEVICE)
    count = 400
    ids, _ = drawn(logits.expand(count, 8).contiguous(), 6, [Sampling(1.0, 1.0)] * count, [*range(count)])
    expected = logits[:6].softmax(-1)
    found = torch.bincount(ids, minlength=6) / count
    assert ((found - expected).abs() < 4 * (expected * (1 - expected) / count).sqrt() + 1e-9).all()
    kept, _ = drawn(logits.expand(count, 8).contiguous(), 6, [Sampling(1.0, 0.75)] * count, [*range(count)])
    assert set(kept.tolist()) == {1, 2}


def test_numbers_that_are_none_are_told_by_the_log_probability() -> None:
    logits = torch.randn(2, 70).to(DEVICE)
    logits[1, 3] = float("nan")
    ids, logprobs = drawn(logits, 64, WAYS[2:4], [5, 6])
    assert logprobs[0].isfinite() and not logprobs[1].isfinite()
    assert ((ids >= 0) & (ids < 64)).all()
