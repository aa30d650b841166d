"""What tests of guessed tokens share: requests, drafts near to a decoder, and one that is about to draw."""

from random import Random

import pytest
import torch

from roslin.engine import Completion, Request, Sampling
from roslin.engine.costs import PassCosts
from roslin.engine.generation import Generation
from roslin.model import Decoder


def nearly(decoder: Decoder, spread: float = 0.03) -> Decoder:
    """The decoder with other weights, by so much: it mostly says the same."""
    other = Decoder(decoder.config)
    other.load_state_dict(decoder.state_dict())
    source = torch.Generator().manual_seed(11)
    for parameter in other.parameters():
        parameter.data += spread * torch.randn(parameter.shape, generator=source)
    return other


def random_request(chance: Random, vocabulary: int) -> Request:
    opening = [n % 4 for n in range(chance.choice([0, 20, 40]))]
    return Request(
        prompt_ids=[*opening, *(chance.randrange(vocabulary) for _ in range(chance.randint(1, 50)))],
        max_new_tokens=chance.choice([1, 2, 3, 17, 60]),
        sampling=Sampling(
            temperature=chance.choice([0.0, 0.3, 1.0]),
            top_p=chance.choice([0.3, 0.92, 1.0]),
            top_k=chance.choice([0, 0, 3]),
            seed=chance.getrandbits(64),
            stream=chance.randrange(3),
        ),
        stop_ids=frozenset(chance.sample(range(vocabulary), chance.choice([0, 0, 1]))),
        top_logprobs=chance.randint(0, 3),
    )


def assert_same(found: Completion, alone: Completion) -> None:
    """As far as the one came."""
    count = len(found.ids)
    assert found.seed == alone.seed
    assert found.ids == alone.ids[:count]
    assert found.logprobs == pytest.approx(alone.logprobs[:count], rel=1e-5, abs=1e-4)
    for ours, theirs in zip(found.top_logprobs, alone.top_logprobs[:count], strict=True):
        assert [value for _, value in ours] == pytest.approx([value for _, value in theirs], rel=1e-5, abs=1e-4)
    if found.finish_reason != "cancelled":
        assert found.finish_reason == alone.finish_reason
        assert (count, found.timings.tokens) == (len(alone.ids), alone.timings.tokens)


def answering(answer: list[int], prompt: list[int] | None = None) -> Generation:
    """One that is about to draw its next token."""
    generation = Generation(0, Request(prompt or list(range(40)), 200, stop_ids=frozenset({39})))
    generation.ids += answer
    generation.drawn = len(answer)
    generation.computed = len(generation.ids) - 1
    return generation


def measured(seconds: dict[int, float]) -> PassCosts:
    costs = PassCosts()
    for size, each in seconds.items():
        for _ in range(3):
            costs.saw(size, each)
    return costs
