"""Steps with static inputs, run call by call in Triton's interpreter where there is no GPU."""

from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from roslin.engine import GREEDY, Engine, Request, Sampling
from roslin.engine.cache import FP8
from roslin.engine.gpu import paged
from roslin.errors import InputError
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
    assert (engine._passes._graphs is not None) == graphs


@pytest.mark.parametrize("family", ["gpt_neox", "qwen2"])
@pytest.mark.parametrize("graphs", [True, pytest.param(False, marks=pytest.mark.full)])
def test_a_beginning_that_requests_share_is_read_once_and_answers_are_the_same(
    family: str, graphs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roslin.engine.beginnings.WORTH", 1)
    decoder, opening = tiny_decoder(family), [7, 3, 30, 11] * 9
    requests = [Request([*opening, n, 5], 3 + n % 3, GREEDY) for n in range(5)] + [Request([9, 9], 6, GREEDY)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("roslin.engine.engine.has_kernels", lambda device: False)
        expected = Engine(decoder, VOCABULARY, 6).run(requests)
    reads = []
    kernel = paged.GpuAttention._of_shared

    def spied(self: paged.GpuAttention, layer: int, common: paged.SharedPlaces, *rest: Any) -> Any:
        reads.append((layer, common.commons_N.tolist()))
        return kernel(self, layer, common, *rest)

    monkeypatch.setattr(paged.GpuAttention, "_of_shared", spied)
    engine = Engine(decoder.to(DEVICE), VOCABULARY, 6, weights_stay=True, graphs=graphs, ahead=True)
    for one, other in zip(engine.run(requests), expected, strict=True):
        assert (one.ids, one.finish_reason) == (other.ids, other.finish_reason)
        assert one.logprobs == pytest.approx(other.logprobs, rel=1e-5, abs=1e-4)
    assert reads and all(sum(common) == 32 * sum(map(bool, common)) and any(common) for _, common in reads)


@pytest.mark.parametrize("graphs", [True, False])
def test_with_keys_and_values_in_fp8_kernels_answer_as_plain_torch_does(graphs: bool) -> None:
    decoder = tiny_decoder("gpt_neox")
    requests = [Request([n + 3, 9, 2] * (5 + 3 * n), 4, Sampling(seed=n) if n % 2 else GREEDY) for n in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("roslin.engine.engine.has_kernels", lambda device: False)
        expected = Engine(decoder, VOCABULARY, 2, cache_dtype=FP8).run(requests)
        exact = Engine(decoder, VOCABULARY, 2).run(requests)
    engine = Engine(decoder.to(DEVICE), VOCABULARY, 2, weights_stay=True, graphs=graphs, ahead=True, cache_dtype=FP8)
    for one, other, unrounded in zip(engine.run(requests), expected, exact, strict=True):
        assert one.ids == other.ids
        assert one.logprobs == pytest.approx(other.logprobs, rel=1e-5, abs=1e-4)
        assert one.logprobs[0] == pytest.approx(unrounded.logprobs[0], abs=0.5)
        assert one.logprobs[0] != pytest.approx(unrounded.logprobs[0], abs=1e-5)


def test_a_cache_in_another_dtype_is_refused() -> None:
    with pytest.raises(InputError, match=r"cache_dtype is torch.float16; a cache of this model keeps torch.float32"):
        Engine(tiny_decoder("gpt_neox"), VOCABULARY, cache_dtype=torch.float16)
