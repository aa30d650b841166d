"""The engine by kernels, with a pass begun ahead, against the plain one: whoever ends, when, and beside whom."""

from random import Random

import pytest
import torch

pytest.importorskip("triton")

from roslin.engine import GREEDY, Completion, Engine, Request, Sampling
from roslin.engine.gpu import paged
from roslin.engine.slots import STOP_IDS
from roslin.model import Decoder
from soaked_engine import soak
from tiny_decoders import VOCABULARY, tiny_decoder

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
GRAPHS = [True, pytest.param(False, marks=pytest.mark.full)]


@pytest.fixture
def decoder() -> Decoder:
    return tiny_decoder("gpt_neox", layers=1)


@pytest.fixture(autouse=True)
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged, "PROGRAMS", 8)
    paged._scratch.cache_clear()


def by_kernels(decoder: Decoder, patch: pytest.MonkeyPatch, max_batch: int, *, graphs: bool, tokens: int) -> Engine:
    patch.setattr("roslin.engine.engine.has_kernels", lambda device: True)
    return Engine(
        decoder.to(DEVICE), VOCABULARY, max_batch, weights_stay=True, graphs=graphs, ahead=True, speculate=False,
        cache_tokens=tokens,
    )  # fmt: skip


def same(one: Completion, other: Completion) -> bool:
    near = one.logprobs == pytest.approx(other.logprobs, rel=1e-5, abs=1e-4)
    return (one.ids, one.finish_reason) == (other.ids, other.finish_reason) and near


@pytest.mark.parametrize("graphs", GRAPHS)
def test_answers_end_as_they_do_alone(decoder: Decoder, graphs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first token, after one at most, at odd times, with many stop ids; and slots are taken again at once."""
    ways = [Sampling(1.5, 1.0, seed=n) for n in range(4)]
    free = Engine(decoder, VOCABULARY).run([Request([n + 3, 9, 2], 12, way) for n, way in enumerate(ways)])
    many = frozenset([free[2].ids[5], *range(50, 50 + STOP_IDS)])
    requests = [
        Request([3, 9, 2], 12, ways[0], frozenset({free[0].ids[0]})),
        Request([4, 9, 2], 1, ways[1]),
        Request([5, 9, 2], 12, ways[2], many),
        Request([6, 9, 2], 12, ways[3], frozenset({free[3].ids[6]})),
        *(Request([n + 7, 9], 1 + 3 * n, GREEDY, frozenset({n, 21})) for n in range(4)),
        Request([6, 9, 2], 7, GREEDY, top_logprobs=2),
    ]
    expected = [Engine(decoder, VOCABULARY, speculate=False).run([request])[0] for request in requests]
    engine = by_kernels(decoder, monkeypatch, 3, graphs=graphs, tokens=400)
    found = engine.run(requests)
    assert all(same(one, other) for one, other in zip(found, expected, strict=True))
    assert [one.finish_reason for one in found[:4]] == ["stop", "length", "stop", "stop"]
    assert 0 == len(found[0].ids) < 1 == len(found[1].ids) < min(len(found[2].ids), len(found[3].ids))
    assert engine.occupancy.held == 0


@pytest.mark.parametrize("graphs", GRAPHS)
@pytest.mark.parametrize("seed", [6, *(pytest.param(n, marks=pytest.mark.full) for n in (11, 18, 20))])
def test_arrivals_cancels_and_who_gives_way_change_nothing(
    decoder: Decoder, graphs: bool, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = Random(seed)
    asked = [
        Request(
            [chance.randrange(VOCABULARY) for _ in range(chance.randint(1, 4))],
            chance.choice([3, 38]),
            GREEDY if chance.random() < 0.5 else Sampling(seed=chance.getrandbits(32)),
            frozenset(chance.sample(range(VOCABULARY), chance.choice([0, 0, 1, STOP_IDS + 1]))),
        )
        for _ in range(5)
    ]
    with monkeypatch.context() as patch:
        engine = by_kernels(decoder, patch, 3, graphs=graphs, tokens=64)
        requests, ended = soak(engine, list(asked), chance)
    assert engine.preempted and engine.occupancy.held == 0
    for number, request in requests.items():
        [alone] = Engine(decoder, VOCABULARY, speculate=False).run([request])
        cancelled = ended[number].finish_reason == "cancelled"
        assert ended[number].ids == alone.ids[: len(ended[number].ids)]
        assert cancelled or same(ended[number], alone)
