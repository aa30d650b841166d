from typing import Any

import pytest
import torch

from roslin.engine import cache as module
from roslin.engine.blocks import BLOCK
from roslin.engine.cache import KVCache
from tiny_decoders import tiny_decoder


def made() -> KVCache:
    return KVCache(tiny_decoder("gpt_neox").config, torch.float32, torch.device("cpu"))


def test_blocks_that_are_added_are_zeros_and_leave_the_others_as_they_were() -> None:
    cache = made()
    assert cache.provide(3)
    for keys, values in cache.layers:
        assert keys.shape == (3, 2, BLOCK, 16)
        keys.normal_()
        values.copy_(-keys)
    before = [keys.clone() for keys, _ in cache.layers]
    assert cache.provide(7)
    assert cache.blocks == 7
    for (keys, values), old in zip(cache.layers, before, strict=True):
        assert torch.equal(keys[:3], old)
        assert torch.equal(values[:3], -old)
        assert not keys[3:].any()
        assert not values[3:].any()


def test_memory_that_is_lacking_is_told_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = made()
    assert cache.provide(2)
    for keys, _ in cache.layers:
        keys.normal_()
    before = [keys.clone() for keys, _ in cache.layers]
    zeros, count = module.zeros, 0

    def fail(*made: Any) -> torch.Tensor:
        nonlocal count
        count += 1
        if count > 3:  # in the second layer
            raise torch.OutOfMemoryError("CUDA out of memory")
        return zeros(*made)

    monkeypatch.setattr(module, "zeros", fail)
    assert not cache.provide(5)
    assert cache.blocks == 2
    for (keys, _), old in zip(cache.layers, before, strict=True):
        assert torch.equal(keys[:2], old)


def test_a_sequence_is_copied_together_from_its_blocks() -> None:
    cache = made()
    assert cache.provide(6)
    for kept in cache.layers[1]:
        kept.normal_()
    found = cache.sequence(1, torch.tensor([4, 0, 5]), 2 * BLOCK + 3, torch.float32)
    for kept, sequence in zip(cache.layers[1], found, strict=True):
        expected = [kept[block, :, place] for block in (4, 0, 5) for place in range(BLOCK)]
        assert torch.equal(sequence, torch.stack(expected[: 2 * BLOCK + 3]))
