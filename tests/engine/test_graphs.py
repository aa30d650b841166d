"""Steps with static inputs, run call by call in Triton's interpreter where there is no GPU."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from roslin.engine import GREEDY, Engine, Request, Sampling
from roslin.engine.gpu import paged
from roslin.engine.graphs import End, Graphs
from roslin.errors import InputError, MachineError
from roslin.model.fp8 import FP8
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


class Recorded(Graphs):
    """Graphs that capture nothing but say what they would; of `broken` rows they cannot."""

    broken = 0
    failure = RuntimeError("operation not permitted when stream is capturing")

    def __init__(self, *told: Any, **how: Any) -> None:
        super().__init__(*told, **how | {"capture": False})
        self._capture = True

    def _captured(self, bucket: int, end: End, shared: bool) -> Any:
        if bucket == self.broken:
            raise self.failure
        return SimpleNamespace(replay=lambda: self._compute(bucket, end, shared))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> type[Recorded]:
    monkeypatch.setattr("roslin.engine.graphs.Graphs", Recorded)
    return Recorded


def captured(engine: Engine) -> list[tuple[int, str, bool]]:
    made = engine._passes._graphs
    return [] if made is None else list(made[1]._graphs)


def with_graphs(max_batch: int) -> Engine:
    return Engine(tiny_decoder("gpt_neox", layers=1).to(DEVICE), VOCABULARY, max_batch, weights_stay=True, graphs=True)


@pytest.mark.usefixtures("recorded")
def test_steps_of_few_are_captured_beforehand_and_others_when_they_are_wanted() -> None:
    engine = with_graphs(20)
    assert not captured(engine) and not engine._store.pool.size
    engine.prepare()
    few = [(rows, end, False) for rows in (16, 8, 4, 2, 1) for end in ("best", "drawn")]
    assert captured(engine) == few and engine._store.pool.size == engine._store.pool.limit
    engine.prepare()
    engine.run([Request([n + 3], 3, GREEDY) for n in range(2)])
    assert captured(engine) == few
    engine.run([Request([n + 3], 3, GREEDY) for n in range(17)])
    assert captured(engine) == [*few, (20, "best", False)]


def test_without_being_asked_the_first_request_prepares(recorded: type[Recorded]) -> None:
    engine = with_graphs(2)
    engine.submit(Request([3], 3, GREEDY))
    assert len(captured(engine)) == 4


def test_a_step_that_cannot_be_captured_is_told_and_memory_that_lacks_too(
    recorded: type[Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is kept of it: the next try begins from the start."""
    monkeypatch.setattr(recorded, "broken", 2)
    engine = with_graphs(2)
    for _ in range(2):
        with pytest.raises(MachineError, match=r"of 2 sequences cannot be captured.* not permitted .* without graphs"):
            engine.submit(Request([3], 3, GREEDY))
        assert not engine.busy and not engine._store.pool.size
    monkeypatch.setattr(recorded, "failure", torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(MachineError, match=r"Out of memory on .*: lower max_batch"):
        engine.prepare()
    monkeypatch.setattr(recorded, "broken", 0)
    assert len(engine.run([Request([3], 3, GREEDY)])[0].ids) == 3


@pytest.mark.usefixtures("recorded")
def test_where_there_is_no_room_for_a_cache_requests_are_refused() -> None:
    decoder = tiny_decoder("gpt_neox", layers=1).to(DEVICE)
    engine = Engine(decoder, VOCABULARY, 2, weights_stay=True, graphs=True, cache_tokens=8)
    for _ in range(2):
        with pytest.raises(InputError, match="can never fit into the cache, which has memory for 0 tokens"):
            engine.submit(Request([3], 3, GREEDY))


def test_graphs_are_off_where_nothing_is_said() -> None:
    assert not Engine(tiny_decoder("gpt_neox"), VOCABULARY, weights_stay=True)._with_graphs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("roslin.engine.engine.GRAPHS", True)
        assert Engine(tiny_decoder("gpt_neox"), VOCABULARY, weights_stay=True)._with_graphs
        assert not Engine(tiny_decoder("gpt_neox"), VOCABULARY)._with_graphs
