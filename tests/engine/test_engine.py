"""The engine against the plain decoder, and its requests against themselves alone."""

import math
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from roslin.engine import GREEDY, Engine, Event, Request, Sampling
from roslin.engine.cache import KVCache
from roslin.engine.scheduler import PROMPT_TOKENS_BESIDE
from roslin.errors import InputError, MachineError
from roslin.model import Decoder
from soaked_engine import soak
from tiny_decoders import VOCABULARY, plain_logits, tiny_decoder

PROMPT = [5, 9, 2, 40, 17]


def test_greedy_equals_a_plain_recomputation_for_256_steps(decoder: Decoder) -> None:
    [done] = Engine(decoder, VOCABULARY).run([Request(PROMPT, 256, GREEDY, top_logprobs=3)])
    # One pass over the result checks each choice given all before it; it holds for 256 steps by induction.
    logits = plain_logits(decoder, [*PROMPT, *done.ids])[len(PROMPT) - 1 : -1]
    assert list(done.ids) == logits[:, :VOCABULARY].argmax(-1).tolist()
    expected = logits.log_softmax(-1)
    chosen = expected.gather(-1, torch.tensor(done.ids)[:, None])[:, 0]
    assert torch.allclose(torch.tensor(done.logprobs), chosen, atol=1e-4)
    best, ids = expected[:, :VOCABULARY].topk(3)
    assert [[id for id, _ in top] for top in done.top_logprobs] == ids.tolist()
    assert torch.allclose(torch.tensor([[value for _, value in top] for top in done.top_logprobs]), best, atol=1e-4)
    assert done.finish_reason == "length"


def random_request(chance: Random) -> Request:
    """Half of them begin as others do."""
    sampling = Sampling(
        temperature=chance.choice([0.0, 0.7, 1.0, 1.5]),
        top_p=chance.choice([0.3, 0.92, 1.0]),
        top_k=chance.choice([0, 0, 1, 5]),
        seed=chance.getrandbits(64),
        stream=chance.randrange(4),
    )
    opening = [n % 7 for n in range(chance.choice([0, 20, 40]))]
    return Request(
        prompt_ids=[*opening, *(chance.randrange(VOCABULARY) for _ in range(chance.randint(1, 70)))],
        max_new_tokens=chance.randint(1, 80),
        sampling=sampling,
        stop_ids=frozenset(chance.sample(range(VOCABULARY), chance.randint(0, 2))),
        top_logprobs=chance.randint(0, 3),
    )


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 8),
    max_batch=st.integers(1, 4),
    tokens=st.sampled_from([192, 256, 4000]),
    weights_stay=st.booleans(),
    beside=st.sampled_from([3, 16, 50, 256]),
    ahead=st.booleans(),
)
def test_a_result_does_not_depend_on_what_shares_the_batch(
    seed: int, count: int, max_batch: int, tokens: int, weights_stay: bool, beside: int, ahead: bool
) -> None:
    """Nor on how full the cache is, on what it keeps of others, and on the pieces in which prompts are read."""
    chance = Random(seed)
    decoder = tiny_decoder("gpt_neox")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROMPT_TOKENS_BESIDE, "cpu", beside)
        engine = Engine(decoder, VOCABULARY, max_batch, weights_stay=weights_stay, cache_tokens=tokens, ahead=ahead)
    requests, ended = soak(engine, [random_request(chance) for _ in range(count)], chance)
    assert engine.step() == []
    assert engine.occupancy.held == 0
    assert ended.keys() == requests.keys()
    for number, request in requests.items():
        [alone] = Engine(decoder, VOCABULARY).run([request])
        found = ended[number]
        assert found.ids == alone.ids[: len(found.ids)]
        assert found.logprobs == pytest.approx(alone.logprobs[: len(found.ids)], rel=1e-5, abs=1e-4)
        assert all(id < VOCABULARY for id in found.ids)
        if found.finish_reason != "cancelled":
            assert (found.ids, found.finish_reason) == (alone.ids, alone.finish_reason)


def test_many_long_requests_finish_in_a_tiny_cache_as_they_do_in_a_large_one(decoder: Decoder) -> None:
    chance = Random(3)
    requests = [random_request(chance) for _ in range(24)]
    large = Engine(decoder, VOCABULARY, 8, cache_tokens=100_000)
    expected = large.run(requests)
    assert large.preempted == 0
    for ahead in (False, True):
        tiny = Engine(decoder, VOCABULARY, 8, cache_tokens=200, ahead=ahead, speculate=False)
        found = tiny.run(requests)
        assert tiny.preempted > 1
        for one, other in zip(found, expected, strict=True):
            assert (one.ids, one.finish_reason) == (other.ids, other.finish_reason)
            assert one.logprobs == pytest.approx(other.logprobs, rel=1e-5, abs=1e-4)


def test_a_request_that_can_never_fit_is_refused_before_any_work(neox: Decoder) -> None:
    engine = Engine(neox, VOCABULARY, cache_tokens=100)
    with pytest.raises(InputError, match="can never fit into the cache, which has memory for 96 tokens; shorten"):
        engine.run([Request(PROMPT, 5, GREEDY), Request([3] * 60, 38, GREEDY)])
    assert not engine.busy
    assert len(engine.run([Request([3] * 60, 37, GREEDY)])[0].ids) == 37


def test_the_cache_says_what_it_holds_and_how_full_it_is(neox: Decoder) -> None:
    engine = Engine(neox, VOCABULARY, max_batch=3, weights_stay=True)
    assert str(engine.capacity) == "1,200 tokens, or 3 full-length requests of 400"
    engine.submit(Request([3] * 30, 10, GREEDY))
    engine.step()
    assert (engine.occupancy.held, engine.occupancy.capacity) == (32, 1200)
    while engine.busy:
        engine.step()
    # Two blocks were full: the thirty of the prompt and two of the answer.
    assert (engine.occupancy.held, engine.occupancy.kept) == (0, 32)


def test_what_an_answer_left_in_the_cache_serves_the_next_prompt(
    neox: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(neox, VOCABULARY, weights_stay=True)
    [first] = engine.run([Request([3] * 30, 40, GREEDY)])
    again = [*[3] * 30, *first.ids, 9]
    [expected] = Engine(neox, VOCABULARY).run([Request(again, 20, GREEDY)])
    counted: list[int] = []
    hidden = neox.hidden
    monkeypatch.setattr(neox, "hidden", lambda ids_N, *rest: counted.append(len(ids_N)) or hidden(ids_N, *rest))
    [found] = engine.run([Request(again, 20, GREEDY)])
    assert counted[0] == 71 - 64
    assert found.ids == expected.ids
    assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


def test_memory_that_cannot_be_had_makes_requests_wait_and_not_fail(
    neox: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [Request([n], 200, GREEDY) for n in range(8)]
    expected = Engine(neox, VOCABULARY, 8).run(requests)
    provide = KVCache.provide
    monkeypatch.setattr(KVCache, "provide", lambda self, blocks: blocks <= 64 and provide(self, blocks))
    engine = Engine(neox, VOCABULARY, 8, cache_tokens=100_000, speculate=False)
    found = engine.run(requests)
    assert engine.preempted > 0
    assert [one.ids for one in found] == [one.ids for one in expected]


def test_run_keeps_the_order_of_the_requests_and_leaves_others_running(neox: Decoder) -> None:
    engine = Engine(neox, VOCABULARY, max_batch=2)
    asked = [*(Request([n + 1], 3 + n, GREEDY) for n in range(3)), Request([5], 100, GREEDY)]
    alone = [Engine(neox, VOCABULARY).run([request])[0] for request in asked]
    other = engine.submit(asked[3])
    engine.step()
    together = engine.run(asked[:3])
    assert [c.ids for c in together] == [c.ids for c in alone[:3]]
    left = engine.cancel(other)
    assert left is not None and left.ids == alone[3].ids[: len(left.ids)]
    assert len(left.ids) > 5


def test_a_stop_token_ends_a_request_and_is_not_part_of_it(neox: Decoder) -> None:
    [free] = Engine(neox, VOCABULARY).run([Request(PROMPT, 30, GREEDY)])
    stop = free.ids[7]
    [done] = Engine(neox, VOCABULARY).run([Request(PROMPT, 30, GREEDY, frozenset({stop}))])
    assert done.ids == free.ids[: free.ids.index(stop)]
    assert done.finish_reason == "stop"
    assert done.timings.tokens == len(done.ids) + 1
    assert 0 < done.timings.first_token <= done.timings.total


def test_a_pass_ahead_changes_nothing_of_what_comes_back_and_when(decoder: Decoder) -> None:
    """Step by step; and what the cache keeps in the end."""
    stops = frozenset({3, 8, 21})
    requests = [Request([n + 3, 9, 2] * 6, 40, Sampling(seed=n), stops) for n in range(5)]
    engines = [
        Engine(decoder, VOCABULARY, 5, weights_stay=True, ahead=ahead, speculate=False) for ahead in (False, True)
    ]
    for engine in engines:
        engine.submit_all(requests)
    while engines[0].busy:
        one, other = ([_news(event) for event in engine.step()] for engine in engines)
        assert one == other
    assert not engines[1].busy
    assert engines[1].occupancy == engines[0].occupancy
    assert [engine.step() for engine in engines] == [[], []]


def _news(event: Event) -> tuple[int, int | None, str | None]:
    return event.number, event.token and event.token.id, event.completion and event.completion.finish_reason


@pytest.mark.parametrize("ahead", [False, True])
def test_a_cancelled_request_frees_its_slot(neox: Decoder, ahead: bool) -> None:
    engine = Engine(neox, VOCABULARY, ahead=ahead)
    number = engine.submit(Request(PROMPT, 100, GREEDY))
    engine.step()
    assert engine.busy
    cancelled = engine.cancel(number)
    assert cancelled is not None and len(cancelled.ids) == 1
    assert not engine.busy


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: not enough memory")]
)
def test_memory_that_runs_out_is_told_and_ends_every_request(
    neox: Decoder, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(neox, VOCABULARY)

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(neox, "hidden", fail)
        with pytest.raises(MachineError, match="Out of memory"):
            engine.run([Request(PROMPT, 10, GREEDY)])
    assert not engine.busy
    assert engine.run([Request(PROMPT, 3, GREEDY)])[0].ids


def test_a_seed_repeats_an_answer_and_its_absence_draws_a_fresh_one(neox: Decoder) -> None:
    engine = Engine(neox, VOCABULARY)
    fresh = engine.run([Request(PROMPT, 40), Request(PROMPT, 40)])
    assert fresh[0].seed != fresh[1].seed
    assert fresh[0].ids != fresh[1].ids
    [again] = engine.run([Request(PROMPT, 40, Sampling(seed=fresh[0].seed))])
    assert again.ids == fresh[0].ids
    streams = engine.run([Request(PROMPT, 40, Sampling(seed=1, stream=n)) for n in range(4)])
    assert len({c.ids for c in streams}) == 4


def test_all_faults_of_all_requests_come_at_once_before_any_work(neox: Decoder) -> None:
    engine = Engine(neox, VOCABULARY)
    bad = Request([], 0, Sampling(temperature=-1, top_p=0, top_k=-2), top_logprobs=-1)
    with pytest.raises(InputError) as error:
        engine.run([Request(PROMPT, 5), bad, Request([VOCABULARY], 400)])
    text = str(error.value)
    parts = ["2 of 3", "temperature is -1", "top_p is 0", "top_k is -2", "prompt is empty", "max_new_tokens is 0"]
    parts += ["top_logprobs is -1", "outside 0 … 60", "1 prompt tokens and 400 new ones make 401", "400 positions"]
    for part in parts:
        assert part in text
    assert not engine.busy


@pytest.mark.parametrize("temperature", [math.nan, math.inf])
def test_a_temperature_must_be_a_number(neox: Decoder, temperature: float) -> None:
    with pytest.raises(InputError, match="temperature"):
        Engine(neox, VOCABULARY).submit(Request(PROMPT, 5, Sampling(temperature)))


@pytest.mark.parametrize("seed", [-(2**63) - 1, 2**64])
def test_a_seed_has_64_bits(neox: Decoder, seed: int) -> None:
    engine = Engine(neox, VOCABULARY)
    with pytest.raises(InputError, match="64 bits"):
        engine.submit(Request(PROMPT, 5, Sampling(seed=seed)))
    inside = seed + 1 if seed < 0 else seed - 1
    assert engine.run([Request(PROMPT, 5, Sampling(seed=inside))])[0].seed == inside


def test_a_prompt_may_fill_all_positions_but_one(neox: Decoder) -> None:
    [done] = Engine(neox, VOCABULARY).run([Request([3] * 399, 1, GREEDY)])
    assert len(done.ids) == 1


def test_a_vocabulary_larger_than_the_head_is_refused(neox: Decoder) -> None:
    with pytest.raises(InputError, match="65 ids and the model's head 64 rows"):
        Engine(neox, 65)


@pytest.mark.parametrize("ahead", [False, True])
def test_logits_that_are_no_numbers_are_named_and_harm_nothing_later(ahead: bool) -> None:
    decoder = tiny_decoder("gpt_neox")
    engine = Engine(decoder, VOCABULARY, ahead=ahead)
    [good] = engine.run([Request(PROMPT, 10, GREEDY)])
    kept = decoder.norm.weight.data.clone()
    decoder.norm.weight.data[3] = math.nan
    with pytest.raises(MachineError, match="stop being numbers"):
        engine.run([Request(PROMPT, 10), Request(PROMPT, 10, GREEDY)])
    assert not engine.busy
    decoder.norm.weight.data.copy_(kept)
    assert engine.run([Request(PROMPT, 10, GREEDY)])[0].ids == good.ids


def test_weights_may_change_between_requests_and_the_model_still_trains() -> None:
    decoder = tiny_decoder("gpt_neox")
    engine = Engine(decoder, VOCABULARY)
    [before] = engine.run([Request(PROMPT, 20, GREEDY)])
    loss = decoder.logits(decoder.embedding(torch.tensor(PROMPT))).square().mean()
    loss.backward()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    [after] = engine.run([Request(PROMPT, 20, GREEDY)])
    assert after.ids == Engine(decoder, VOCABULARY).run([Request(PROMPT, 20, GREEDY)])[0].ids
    assert after.ids != before.ids


def test_a_decoder_moved_to_another_dtype_gets_a_new_cache() -> None:
    decoder = tiny_decoder("gpt_neox")
    engine = Engine(decoder, VOCABULARY)
    [before] = engine.run([Request(PROMPT, 20, GREEDY)])
    decoder.double()
    [after] = engine.run([Request(PROMPT, 20, GREEDY)])
    assert after.ids == before.ids
