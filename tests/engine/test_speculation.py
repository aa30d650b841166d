"""The engine with guesses against the engine without them, and when it guesses."""

from dataclasses import replace
from itertools import product
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cpu_kernels import needs_kernels
from guessing import answering, assert_same, measured, nearly, random_request
from roslin.engine import GREEDY, Engine, Network, Request, Sampling, Token, fuse
from roslin.engine.costs import PassCosts
from roslin.engine.generation import Generation
from roslin.engine.speculation import Speculation
from roslin.model import Decoder, scaled
from soaked_engine import soak
from tiny_decoders import FAMILIES, VOCABULARY, plain_logits, tiny_decoder

FEW = 5
"""A vocabulary in which everything soon has stood before."""
FORMS = ["plain", "gathered", "kernels"]


@pytest.fixture(scope="module")
def networks() -> dict[tuple[str, str], Network]:
    """Every family as the plain decoder, and as what a CPU's kernels make of it."""
    plain = {(family, "plain"): tiny_decoder(family) for family in FAMILIES}
    return {**plain, **{(family, "kernels"): fuse(tiny_decoder(family)) for family in FAMILIES}}


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    family=st.sampled_from(sorted(FAMILIES)),
    vocabulary=st.sampled_from([FEW, VOCABULARY]),
    max_batch=st.integers(1, 4),
    tokens=st.sampled_from([160, 256, 4000]),
    weights_stay=st.booleans(),
    ahead=st.booleans(),
)
def test_guesses_change_nothing_of_what_comes_back(
    networks: dict[tuple[str, str], Network], form: str, seed: int, family: str, vocabulary: int, max_batch: int,
    tokens: int, weights_stay: bool, ahead: bool,
) -> None:  # fmt: skip
    chance = Random(seed)
    network = networks[family, "kernels" if form == "kernels" else "plain"]
    with pytest.MonkeyPatch.context() as patch:
        if form == "gathered":
            patch.setattr("roslin.engine.paged.has_kernel", lambda dtype: False)
        engine = Engine(
            network, vocabulary, max_batch, weights_stay=weights_stay, cache_tokens=tokens, ahead=ahead, speculate=True
        )
    requests, ended = soak(engine, [random_request(chance, vocabulary) for _ in range(chance.randint(1, 6))], chance)
    assert engine.step() == []
    assert engine.occupancy.held == 0
    assert ended.keys() == requests.keys()
    for number, request in requests.items():
        [alone] = Engine(network, vocabulary, speculate=False).run([request])
        assert_same(ended[number], alone)


@needs_kernels
@pytest.mark.parametrize("family", FAMILIES)
def test_in_bfloat16_guesses_never_make_a_pass_so_long_that_its_tokens_are_rounded(family: str) -> None:
    network = fuse(tiny_decoder(family).bfloat16())
    requests = [Request([n, 2, 4] * 4, 50, Sampling(seed=n) if n % 2 else GREEDY) for n in range(4)]
    found, plain = (Engine(network, FEW, 4, speculate=guessing).run(requests) for guessing in (True, False))
    assert [one.ids for one in found] == [one.ids for one in plain]
    assert [one.logprobs for one in found] == [one.logprobs for one in plain]


@pytest.mark.parametrize(
    ("family", "scaling"), [*((family, "") for family in sorted(FAMILIES)), ("llama", "dynamic:2")]
)
@pytest.mark.parametrize("ahead", [False, True])
def test_one_request_comes_back_step_by_step_as_without_guesses_in_fewer_passes(
    family: str, scaling: str, ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = tiny_decoder(family, positions=60 if scaling else 400)
    if scaling:
        stretched = Decoder(scaled(decoder.config, scaling))
        stretched.load_state_dict(decoder.state_dict())
        decoder = stretched
    requests = [Request([1, 2, 3, 0] * 6, 90, sampling) for sampling in (GREEDY, Sampling(0.7, seed=3), GREEDY)]
    engines = [
        Engine(decoder, FEW, weights_stay=True, cache_tokens=400, ahead=ahead, speculate=speculate)
        for speculate in (False, True)
    ]
    passes: list[int] = []
    hidden = decoder.hidden
    monkeypatch.setattr(decoder, "hidden", lambda ids_N, *rest: passes.append(len(ids_N)) or hidden(ids_N, *rest))
    counts = [0, 0]
    for request in requests:
        for engine in engines:
            engine.submit(request)
        while engines[0].busy:
            news, kept = [], []
            for which, engine in enumerate(engines):
                passes.clear()
                events = engine.step()
                counts[which] += len(passes)
                news.append([(e.number, e.token and e.token.id, e.completion and e.completion.ids) for e in events])
                kept.append(engine.occupancy.kept)
            assert news[0] == news[1]
            if not ahead:
                assert kept[0] == kept[1]  # only tokens that stay are to be found by others
        assert engines[0].occupancy == engines[1].occupancy
    assert counts[1] < 0.9 * counts[0]


def test_many_requests_in_a_tiny_cache_give_way_and_end_alike(networks: dict[tuple[str, str], Network]) -> None:
    chance = Random(5)
    network = networks["llama", "plain"]
    requests = [replace(random_request(chance, FEW), max_new_tokens=60) for _ in range(24)]
    expected = Engine(network, FEW, 8, cache_tokens=100_000, speculate=False).run(requests)
    tiny = Engine(network, FEW, 8, cache_tokens=160, speculate=True)
    found = tiny.run(requests)
    assert tiny.preempted > 1
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)
    assert tiny.occupancy.held == 0


@pytest.mark.parametrize("drafted", [False, True])
def test_draws_with_guesses_follow_the_exact_distribution(
    neox: Decoder, drafted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all sequences of three tokens, each with the product of its tokens' probabilities."""
    vocabulary, prompt, count, new, temperature = 3, [2, 2, 2, 1, 2, 0, 2, 2, 2], 2000, 3, 2.0
    exact = {}
    for ids in product(range(vocabulary), repeat=new):
        logits = plain_logits(neox, [*prompt, *ids])[len(prompt) - 1 : -1, :vocabulary] / temperature
        chosen = logits.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])
        exact[ids] = chosen.sum().exp().item()
    kept = [0]
    keep = Generation.keep

    def counted(self: Generation, proposed: list[int], drawn: list[Token]) -> None:
        keep(self, proposed, drawn)
        kept[0] += len(self.kept) - 1

    monkeypatch.setattr(Generation, "keep", counted)
    engine = Engine(neox, vocabulary, 4, speculate=True, draft=nearly(neox) if drafted else None)
    done = engine.run([Request(prompt, new, Sampling(temperature, 1.0, seed=seed)) for seed in range(count)])
    assert kept[0] > count / 4
    seen = dict.fromkeys(exact, 0)
    for one in done:
        seen[one.ids] += 1
    likely = [ids for ids, chance in exact.items() if chance * count >= 5]
    rest = 1 - sum(exact[ids] for ids in likely)
    cells = [(seen[ids], exact[ids] * count) for ids in likely]
    cells += [(count - sum(seen[ids] for ids in likely), rest * count)] if rest * count >= 1 else []
    chi_square = sum((found - expected) ** 2 / expected for found, expected in cells)
    freedom = len(cells) - 1
    assert freedom >= 5
    # Six standard deviations above the mean of the chi-square distribution.
    assert chi_square < freedom + 6 * (2 * freedom) ** 0.5


CHEAP = {1: 1.0, 2: 1.05, 4: 1.1, 8: 1.2, 16: 1.4}
LINEAR = {size: float(size) for size in (1, 2, 4, 8, 16)}


@pytest.mark.parametrize(("seconds", "count"), [(CHEAP, 7), (LINEAR, 0), ({1: 1.0, 2: 1.1, 4: 1.4, 8: 9.0}, 3)])
def test_by_itself_it_guesses_as_much_as_the_rows_of_a_pass_are_worth(seconds: dict[int, float], count: int) -> None:
    speculation = Speculation(always=False)
    speculation.costs = measured(seconds)
    copying = answering(list(range(10, 30)))
    assert speculation.counts([copying]) == [count]
    assert speculation.propose([copying]) == (count > 0)
    assert copying.proposed == list(range(30, 30 + count))
    strange = answering([n * 17 % 40 for n in range(20)])
    assert speculation.counts([strange]) == [0]


def test_by_itself_it_stops_where_guesses_prove_wrong() -> None:
    speculation = Speculation(always=False)
    speculation.costs = measured(CHEAP)
    assert speculation.counts([answering([3, 4])])[0] > 0
    chance = Random(0)
    wrong = [id for first in chance.choices(range(36), k=60) for id in (first, first + 1, chance.randrange(40))]
    assert speculation.counts([answering([*wrong, 3, 4])]) == [0]


def test_the_best_guesses_of_several_share_a_pass_and_many_make_none() -> None:
    speculation = Speculation(always=False)
    speculation.costs = measured(CHEAP | {3: 1.0, 15: 1.0})
    sure, unsure, none = answering(list(range(2, 30))), answering([3, 4]), answering([3, 9])
    counts = speculation.counts([sure, unsure, none])
    assert counts[0] > counts[1] >= counts[2] == 0
    assert speculation.counts([answering(list(range(2, 30))) for _ in range(16)]) == [0] * 16
    reading = answering([])
    reading.computed = 3
    assert speculation.counts([sure, reading]) == [0, 0]


def test_a_guess_ends_before_a_stop_token_and_before_the_last_token_asked_for() -> None:
    speculation = Speculation(always=True)
    short = answering(list(range(30, 37)))
    assert speculation.propose([short])
    assert short.proposed == [37, 38]
    last = answering(list(range(30)))
    last.drawn = 199
    assert not speculation.propose([last])


def test_costs_are_hoped_low_until_measured_and_hoped_again_once_when_they_are_old() -> None:
    costs = PassCosts()
    assert costs.of(4, 1) == float("inf")
    for _ in range(2):
        costs.saw(1, 1.0)
    assert 1 < costs.of(4, 1) < 1.2
    costs.saw(4, 9.0)  # the first one may have had to take memory
    assert 1 < costs.of(4, 1) < 1.2
    found = []
    for seconds in (3.0, 4.0, 4.5, 50.0):
        costs.saw(4, seconds)
        found.append(costs.of(4, 1))
    assert found == [3.0, 4.0, 4.25, 4.5]
    for _ in range(501):
        costs.saw(1, 1.0)
    assert 1 < costs.of(4, 1) < 1.2
    costs.saw(4, 5.0)
    assert costs.of(4, 1) == 3.0


def test_more_tokens_are_not_hoped_to_cost_less_than_fewer_do() -> None:
    costs = measured({1: 1.0, 2: 2.0})
    assert costs.of(4, 1) == costs.of(16, 1) == 2.0


def test_what_others_are_compared_with_is_measured_again_after_a_while() -> None:
    costs = measured({1: 1.0, 4: 2.0})
    assert costs.fresh(1)
    for _ in range(200):
        costs.saw(4, 2.0)
    assert not costs.fresh(1)
    costs.saw(1, 1.0)
    assert costs.fresh(1)
