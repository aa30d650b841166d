import torch

from roslin.engine.cache import KVCache
from tiny_decoders import tiny_decoder


def test_slots_and_positions_grow_by_doubling_up_to_what_is_needed_and_keep_their_content() -> None:
    cache = KVCache(tiny_decoder("gpt_neox").config, torch.float32, torch.device("cpu"), most_slots=5)
    cache.ensure(1, 3, most_positions=500)
    assert (cache.slots, cache.positions) == (1, 64)
    for keys, values in cache.layers:
        keys.normal_()
        values.copy_(-keys)
    before = [keys.clone() for keys, _ in cache.layers]
    sizes = []
    for slots, positions in [(1, 65), (2, 100), (3, 129), (5, 300), (2, 20)]:
        cache.ensure(slots, positions, most_positions=301)
        sizes.append((cache.slots, cache.positions))
    assert sizes == [(1, 128), (2, 128), (4, 256), (5, 301), (5, 301)]
    for (keys, values), old in zip(cache.layers, before, strict=True):
        assert torch.equal(keys[:1, :, :64], old)
        assert torch.equal(values[:1, :, :64], -old)
        assert not keys[1:].any()
        assert not keys[:, :, 64:].any()


def test_a_sequence_moves_with_all_its_layers() -> None:
    cache = KVCache(tiny_decoder("gpt_neox").config, torch.float32, torch.device("cpu"), most_slots=4)
    cache.ensure(3, 10, most_positions=10)
    for keys, values in cache.layers:
        keys[2].normal_()
        values[2].normal_()
    cache.move(2, 0, 7)
    for keys, values in cache.layers:
        assert torch.equal(keys[0, :, :7], keys[2, :, :7])
        assert torch.equal(values[0, :, :7], values[2, :, :7])
        assert not keys[0, :, 7:].any()
