"""The engine with a draft model against the engine without one, and when the draft is asked."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from guessing import answering, assert_same, measured, nearly, random_request
from roslin.engine import GREEDY, Engine, Network, Request, Sampling, fuse
from roslin.engine.draft import Draft
from roslin.engine.expectations import Lasting, Success
from roslin.engine.speculation import MOST, Speculation
from roslin.errors import InputError
from roslin.model import Attend, Decoder, scaled
from soaked_engine import soak
from tiny_decoders import FAMILIES, VOCABULARY, tiny_decoder

PROMPT = [5, 9, 2, 40, 17]
BEST = Sampling(0.0, seed=0)
FEW = 5
"""A vocabulary in which drafts are right by chance."""


class Timed:
    """A network whose passes take so much of a clock's time, and so much more with every row behind the first."""

    def __init__(self, network: Network, clock: list[float], seconds: float, row: float = 0.0) -> None:
        self.config, self.dtype, self.device = network.config, network.dtype, network.device
        self.rows: list[int] = []
        self._network, self._clock, self._seconds, self._row = network, clock, seconds, row

    def hidden(self, ids_N: Tensor, positions_N: Tensor, attend: Attend, places_M: Tensor | None = None) -> Tensor:
        self.rows.append(len(ids_N))
        self._clock[0] += self._seconds + self._row * (len(ids_N) - 1)
        return self._network.hidden(ids_N, positions_N, attend, places_M)

    def logits(self, hidden_ND: Tensor) -> Tensor:
        return self._network.logits(hidden_ND)


def stranger(**changes: int) -> Decoder:
    """A small decoder of another family that knows nothing of the others."""
    return tiny_decoder("llama", layers=1, **changes)


def stretched(decoder: Decoder) -> Decoder:
    """The same weights, whose positions turn by how long the sequence is."""
    other = Decoder(scaled(decoder.config, "dynamic:3"))
    other.load_state_dict(decoder.state_dict())
    return other


def drafts(decoder: Decoder) -> dict[str, Network]:
    return {
        "itself": decoder,
        "near": nearly(decoder),
        "kernels": fuse(nearly(decoder, 0.01)),
        "short": stranger(positions=60),
        "window": tiny_decoder("mistral", layers=2),
        "stretched": stretched(stranger(positions=30)),
    }


@pytest.fixture(scope="module")
def plain() -> dict[str, Decoder]:
    return {family: tiny_decoder(family) for family in FAMILIES}


@pytest.fixture(scope="module")
def drafting(plain: dict[str, Decoder]) -> dict[tuple[str, str], Network]:
    return {(family, name): draft for family, decoder in plain.items() for name, draft in drafts(decoder).items()}


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("sampling", [BEST, Sampling(0.8, seed=3)], ids=["greedy", "sampled"])
def test_a_draft_that_is_the_model_itself_is_right_nearly_always(
    plain: dict[str, Decoder], family: str, sampling: Sampling
) -> None:
    request = Request(PROMPT, 256, sampling, top_logprobs=2)
    [alone] = Engine(plain[family], VOCABULARY, speculate=False).run([request])
    target = Timed(plain[family], [0.0], 1.0)
    engine = Engine(target, VOCABULARY, speculate=True, draft=plain[family])
    [found] = engine.run([request])
    assert_same(found, alone)
    assert len(found.ids) == 256
    assert len(target.rows) < 1.15 * 256 / (MOST + 1)


@pytest.mark.parametrize("name", ["near", "short", "window"])
def test_answers_are_the_same_for_256_steps_whatever_the_draft_is_like(
    plain: dict[str, Decoder], drafting: dict[tuple[str, str], Network], name: str
) -> None:
    requests = [Request(PROMPT, 256, sampling) for sampling in (BEST, Sampling(seed=1), Sampling(1.3, 1.0, seed=2))]
    for request in requests:
        [alone] = Engine(plain["gpt_neox"], VOCABULARY, speculate=False).run([request])
        target = Timed(plain["gpt_neox"], [0.0], 1.0)
        [found] = Engine(target, VOCABULARY, speculate=True, draft=drafting["gpt_neox", name]).run([request])
        assert_same(found, alone)
        if name == "near":
            assert len(target.rows) < 200


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    family=st.sampled_from(sorted(FAMILIES)),
    name=st.sampled_from(sorted(drafts(tiny_decoder("gpt_neox")))),
    vocabulary=st.sampled_from([FEW, VOCABULARY]),
    max_batch=st.integers(1, 4),
    tokens=st.sampled_from([160, 256, 4000]),
    weights_stay=st.booleans(),
    ahead=st.booleans(),
    always=st.booleans(),
)
def test_a_draft_changes_nothing_of_what_comes_back_and_leaves_no_block(
    plain: dict[str, Decoder], drafting: dict[tuple[str, str], Network], seed: int, family: str, name: str,
    vocabulary: int, max_batch: int, tokens: int, weights_stay: bool, ahead: bool, always: bool,
) -> None:  # fmt: skip
    chance = Random(seed)
    engine = Engine(
        plain[family], vocabulary, max_batch, weights_stay=weights_stay, cache_tokens=tokens, ahead=ahead,
        speculate=always or None, draft=drafting[family, name],
    )  # fmt: skip
    for _ in range(2):
        many = [random_request(chance, vocabulary) for _ in range(chance.randint(1, 6))]
        requests, ended = soak(engine, many, chance)
        assert engine.step() == []
        assert engine.draft is not None
        assert (engine.occupancy.held, engine.draft.held) == (0, 0)
        assert ended.keys() == requests.keys()
        for number, request in requests.items():
            [alone] = Engine(plain[family], vocabulary, speculate=False).run([request])
            assert_same(ended[number], alone)


def test_many_requests_in_tiny_caches_give_way_and_end_alike(plain: dict[str, Decoder]) -> None:
    chance = Random(5)
    requests = [replace(random_request(chance, FEW), max_new_tokens=60) for _ in range(24)]
    expected = Engine(plain["llama"], FEW, 8, cache_tokens=100_000, speculate=False).run(requests)
    tiny = Engine(plain["llama"], FEW, 8, cache_tokens=160, speculate=True, draft=nearly(plain["llama"]))
    found = tiny.run(requests)
    assert tiny.preempted > 1
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)
    assert tiny.draft is not None
    assert (tiny.occupancy.held, tiny.draft.held) == (0, 0)


def test_a_cancel_frees_the_drafts_blocks_at_once(plain: dict[str, Decoder]) -> None:
    engine = Engine(plain["gptj"], VOCABULARY, speculate=True, draft=stranger())
    number = engine.submit(Request(PROMPT * 8, 100, GREEDY))
    for _ in range(5):
        engine.step()
    assert engine.draft is not None
    assert engine.draft.held >= 3
    engine.cancel(number)
    assert engine.draft.held == 0


def test_what_two_prompts_have_in_common_is_read_once_by_the_draft_too(plain: dict[str, Decoder]) -> None:
    draft = Timed(nearly(plain["gpt_neox"]), [0.0], 1.0)
    engine = Engine(plain["gpt_neox"], VOCABULARY, speculate=True, weights_stay=True, draft=draft)
    for last in (1, 2):
        engine.run([Request([*[3, 4, 5, 6] * 16, last], 8, GREEDY)])
    assert [rows for rows in draft.rows if rows > 16] == [66]


def test_weights_that_change_are_asked_anew(plain: dict[str, Decoder]) -> None:
    """Neither cache keeps what other weights have left in it."""
    draft = nearly(plain["gpt_neox"], 0.5)
    target = Timed(plain["gpt_neox"], [0.0], 1.0)
    engine = Engine(target, VOCABULARY, speculate=True, draft=draft)
    request = Request(PROMPT * 10, 100, GREEDY)
    engine.run([request])
    draft.load_state_dict(plain["gpt_neox"].state_dict())
    target.rows.clear()
    engine.run([request])
    assert len(target.rows) < 1.3 * 100 / (MOST + 1) + 1


def simulated(
    monkeypatch: pytest.MonkeyPatch, target: Decoder, draft: tuple[Network, float] | None, requests: Sequence[Request],
    *, row: float = 0.02, ahead: bool = False,
) -> float:  # fmt: skip
    """Seconds by a clock that passes move on: one for a pass of the target, and `row` for each row more."""
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    drafting = Timed(draft[0], clock, draft[1], row=draft[1] * row) if draft else None
    speculate = None if draft else False
    engine = Engine(Timed(target, clock, 1.0, row), VOCABULARY, 4, draft=drafting, ahead=ahead, speculate=speculate)
    engine.run(requests)
    return clock[0]


@pytest.mark.parametrize("count", [1, 3])
def test_by_itself_it_is_used_where_it_wins_and_left_off_where_it_loses(
    plain: dict[str, Decoder], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = plain["gpt_neox"]
    requests = [Request([5, 9 + n, 2, 40], 250, Sampling(1.5, 1.0, seed=n)) for n in range(count)]
    alone = simulated(monkeypatch, target, None, requests)
    # As good as the model, and cheap, even where it is not measured by rows.
    assert simulated(monkeypatch, target, (target, 0.05), requests) < 0.4 * alone
    # As good, and as dear.
    assert simulated(monkeypatch, target, (target, 1.0), requests) < 1.1 * alone
    # Cheap, and mostly wrong.
    assert simulated(monkeypatch, target, (stranger(), 0.1), requests) < 1.1 * alone
    # Rows that cost as much as passes.
    assert simulated(monkeypatch, target, (target, 0.05), requests, row=1.0) < 1.1 * simulated(
        monkeypatch, target, None, requests, row=1.0
    )


def test_it_is_used_and_left_off_where_passes_begin_ahead(
    plain: dict[str, Decoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    target, requests = plain["gpt_neox"], [Request(PROMPT, 250, GREEDY)]
    alone = simulated(monkeypatch, target, None, requests, ahead=True)
    assert simulated(monkeypatch, target, (target, 0.05), requests, ahead=True) < 0.4 * alone
    assert simulated(monkeypatch, target, (stranger(), 0.3), requests, ahead=True) < 1.1 * alone


CHEAP = {1: 1.0, 2: 1.05, 4: 1.1, 8: 1.2, 16: 1.4}


def asked(draft: Draft) -> Speculation:
    draft.begin(100, kernels=False)
    speculation = Speculation(always=False, draft=draft)
    speculation.costs = measured(CHEAP)
    return speculation


@pytest.mark.parametrize(("seconds", "count"), [(0.01, 7), (0.1, 3), (0.5, 0)])
def test_it_makes_as_many_guesses_as_its_own_passes_are_worth(seconds: float, count: int) -> None:
    draft = Draft(stranger(), VOCABULARY, 4)
    speculation = asked(draft)
    draft.costs = measured({1: seconds})
    strange = answering([n * 17 % 40 for n in range(20)], prompt=[1, 2, 3])
    assert speculation.counts([strange]) == [count]


def test_a_draft_that_proves_wrong_is_left_off_and_tried_again_when_that_is_long_ago() -> None:
    draft = Draft(stranger(), VOCABULARY, 4)
    speculation = asked(draft)
    strange = answering([n * 17 % 40 for n in range(20)], prompt=[1, 2, 3])
    assert speculation.counts([strange])[0] > 0
    draft.success.saw(right=0, wrong=100)
    assert speculation.counts([strange]) == [0]
    for _ in range(501):
        draft.rest()
    assert speculation.counts([strange])[0] > 0


def test_a_long_text_is_not_read_for_the_few_tokens_that_are_left() -> None:
    draft = Draft(stranger(), VOCABULARY, 4)
    speculation = asked(draft)
    prompt = [n * 17 % 40 for n in range(300)]
    assert speculation.counts([answering([1, 2, 3], prompt)])[0] > 0
    short = answering([1, 2, 3], prompt)
    short.request = replace(short.request, max_new_tokens=6)
    assert speculation.counts([short]) == [0]


def test_a_long_text_is_not_read_where_answers_have_been_short() -> None:
    draft = Draft(stranger(), VOCABULARY, 4)
    speculation = asked(draft)
    long = answering([1, 2, 3], [n * 17 % 40 for n in range(300)])
    assert speculation.counts([long])[0] > 0
    for _ in range(100):
        draft.lasted.saw(1)
    assert speculation.counts([long]) == [0]
    for _ in range(501):
        draft.rest()
    assert speculation.counts([long])[0] > 0


def test_the_mean_of_what_lasted_follows_the_latest() -> None:
    lasting = Lasting()
    assert lasting.mean == 32
    for tokens in (4, 400):
        for _ in range(300):
            lasting.saw(tokens)
        assert lasting.mean == pytest.approx(tokens, rel=0.05)


def test_what_is_looked_up_goes_before_a_draft_that_is_less_often_right() -> None:
    draft = Draft(stranger(), VOCABULARY, 4)
    speculation = asked(draft)
    draft.success.saw(right=0, wrong=20)
    copying = answering(list(range(10, 30)))
    assert speculation.propose([copying])
    assert copying.proposed == list(range(30, 37))
    assert draft.held == 0


def test_success_fades() -> None:
    success = Success()
    assert success.rate(0.6) == pytest.approx(0.6)
    success.saw(right=500, wrong=0)
    assert success.rate(0.6) > 0.9
    for _ in range(300):
        success.saw(right=0, wrong=1)
    assert success.rate(0.6) < 0.15


def test_float16_is_never_guessed_and_other_dtypes_only_with_a_draft(plain: dict[str, Decoder]) -> None:
    narrow = nearly(plain["gpt_neox"]).to(torch.float16)
    assert Engine(narrow, VOCABULARY, speculate=True, draft=stranger()).draft is None
    wide = nearly(plain["gpt_neox"]).to(torch.bfloat16)
    assert Engine(wide, VOCABULARY, draft=stranger()).draft is not None
    assert Engine(wide, VOCABULARY, draft=stranger(), speculate=False).draft is None


def test_a_draft_of_too_few_rows_is_refused(plain: dict[str, Decoder]) -> None:
    with pytest.raises(InputError, match="has 61 ids and the draft model's head 40 rows"):
        Engine(plain["gpt_neox"], VOCABULARY, draft=stranger(vocab_rows=40))


def test_the_cache_leaves_room_for_the_drafts(plain: dict[str, Decoder], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roslin.engine.capacity.free_memory", lambda device: (100_000_000, 200_000_000))
    large = tiny_decoder("gpt_neox", positions=4000)
    alone = Engine(large, VOCABULARY, 32).capacity.tokens
    beside = Engine(large, VOCABULARY, 32, draft=nearly(plain["gpt_neox"])).capacity.tokens
    assert 0.3 * alone < beside < 0.5 * alone
