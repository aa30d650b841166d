"""Steps with static inputs, run call by call in Triton's interpreter where there is no GPU."""

import pytest
import torch

pytest.importorskip("triton")

from roslin.engine import GREEDY, Engine, Request, Sampling
from roslin.engine.gpu import paged
from tiny_decoders import VOCABULARY, tiny_decoder

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def kernels_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roslin.engine.engine.has_kernels", lambda device: True)
    monkeypatch.setattr(paged, "PROGRAMS", 8)
    paged._scratch.cache_clear()


@pytest.mark.parametrize("family", ["gpt_neox", pytest.param("mistral", marks=pytest.mark.full)])
@pytest.mark.parametrize(
    ("graphs", "speculate"),
    [(True, False), *(pytest.param(*way, marks=pytest.mark.full) for way in [(False, False), (True, True)])],
)
def test_an_engine_with_kernels_and_graphs_answers_as_the_plain_one(family: str, graphs: bool, speculate: bool) -> None:
    decoder = tiny_decoder(family)
    stops = frozenset({4, 11})
    requests = [
        Request([n + 3, 9, 2] * 6, 3 + n, Sampling(seed=n) if n % 2 else GREEDY, stops, top_logprobs=n % 2)
        for n in range(3)
    ]
    requests += [Request([5], 5, GREEDY), Request([5, 6], 3, Sampling(1.0, 1.0, seed=3))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("roslin.engine.engine.has_kernels", lambda device: False)
        expected = Engine(decoder, VOCABULARY, 3).run(requests)
    engine = Engine(
        decoder.to(DEVICE), VOCABULARY, 3, weights_stay=True, graphs=graphs, ahead=True, speculate=speculate
    )
    for chosen in (requests, requests[3:4]):  # the second time all are greedy
        found = engine.run(chosen)
        for one, other in zip(found, expected if len(chosen) > 1 else expected[3:4], strict=True):
            assert (one.ids, one.finish_reason) == (other.ids, other.finish_reason)
            assert one.logprobs == pytest.approx(other.logprobs, rel=1e-5, abs=1e-4)
    assert engine.occupancy.held == 0
    assert (engine._graphs is not None) == graphs
