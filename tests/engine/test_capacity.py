import pytest
import torch

from roslin.engine import Engine, capacity
from roslin.engine.capacity import free_memory
from roslin.memory import answering, cache_tokens
from roslin.model.fp8 import FP8
from tiny_decoders import VOCABULARY, tiny_decoder

CPU = torch.device("cpu")


def test_a_cache_is_as_large_as_can_be_needed_or_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = tiny_decoder("llama")
    plenty = Engine(decoder, VOCABULARY, max_batch=5).capacity
    assert (plenty.tokens, plenty.requests) == (5 * 400, 5)
    needs = answering(decoder.config, "fp32", 400, 5, "cpu")
    # Half of what is free, less what a pass takes, is for the cache: here 2.5 requests of the five.
    free = 2 * (needs.workspace + needs.keys_and_values // 2)
    monkeypatch.setattr(capacity, "free_memory", lambda device: (free, 10 * free))
    little = Engine(decoder, VOCABULARY, max_batch=5).capacity
    assert (little.tokens, little.requests) == (992, 2)
    assert little.tokens == cache_tokens(decoder.config, 4, 5, free, 10 * free, "cpu")


def test_free_memory_is_a_part_of_all() -> None:
    free, memory = free_memory(CPU)
    assert 0 < free <= memory


def test_on_a_gpu_the_engine_takes_what_the_plan_says_that_it_can() -> None:
    """A device on which just so many full-length answers fit by the plan has a cache for exactly so many."""
    config = tiny_decoder("gpt_neox").config
    needs = answering(config, "bf16", config.positions, 7)
    memory = int(needs.total / 0.94) + 2
    assert cache_tokens(config, 2, 7, memory - needs.weights, memory, "cuda") == 7 * 400
    less = memory - 64
    assert cache_tokens(config, 2, 7, less - needs.weights, less, "cuda") < 7 * 400


def test_in_fp8_a_cache_has_room_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """For twice as many tokens as in 16 bits, and never for more than can be needed."""
    config = tiny_decoder("gpt_neox").config
    needs = answering(config, "bf16", config.positions, 8)
    for share, of_cap in ((0.25, 0.5), (0.75, 1.0)):
        free = needs.workspace + int(share * needs.keys_and_values)
        monkeypatch.setattr(capacity, "free_memory", lambda device, free=free: (free, 0))
        cuda = torch.device("cuda")
        plain, small = (capacity.capacity(config, torch.bfloat16, cuda, 8, kept=kept).tokens for kept in (None, FP8))
        assert plain == pytest.approx(share * 8 * 400, abs=16)
        assert small == pytest.approx(of_cap * 8 * 400, abs=32) and small <= 8 * 400
