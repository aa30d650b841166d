"""A draft model whose attention runs by Triton's kernels, in their interpreter where there is no GPU."""

import pytest
import torch

pytest.importorskip("triton")

from guessing import assert_same, nearly
from roslin.engine import Engine, Request, Sampling
from roslin.engine.gpu import paged
from tiny_decoders import VOCABULARY, tiny_decoder

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("ahead", [True, pytest.param(False, marks=pytest.mark.full)])
def test_answers_are_those_without_a_draft(ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = tiny_decoder("gpt_neox", layers=2)
    draft = nearly(decoder, 0.01)
    requests = [Request([n + 3, 9, 2] * 6, 6, Sampling(float(n), seed=n)) for n in range(2)]
    expected = Engine(decoder, VOCABULARY, 3, speculate=False).run(requests)
    monkeypatch.setattr("roslin.engine.engine.has_kernels", lambda device: True)
    monkeypatch.setattr(paged, "PROGRAMS", 8)
    paged._scratch.cache_clear()
    engine = Engine(decoder.to(DEVICE), VOCABULARY, 3, ahead=ahead, speculate=True, draft=draft.to(DEVICE))
    for one, other in zip(engine.run(requests), expected, strict=True):
        assert_same(one, other)
    assert engine.draft is not None
    assert (engine.occupancy.held, engine.draft.held) == (0, 0)
