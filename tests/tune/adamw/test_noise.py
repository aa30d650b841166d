"""Random bits made of counters."""

import torch

from roslin.tune.adamw.noise import bits_of, halves, key_of

CPU = torch.device("cpu")


def murmur(word: int) -> int:
    """MurmurHash3's finalizer, in Python's own integers."""
    word ^= word >> 16
    word = word * 0x85EBCA6B % 2**32
    word ^= word >> 13
    word = word * 0xC2B2AE35 % 2**32
    return word ^ word >> 16


def test_bits_are_hashes_of_counters() -> None:
    for key in (0, 1, -1, key_of(7, "head.weight", 3)):
        for first in (0, 5, 2**31 - 2, 2**32 + 1):
            expected = [murmur((first + n) % 2**32 ^ key % 2**32) for n in range(50)]
            assert [bits % 2**32 for bits in bits_of(key, first, 50, CPU).tolist()] == expected


def test_a_part_has_the_bits_of_the_whole() -> None:
    whole = bits_of(123, 0, 1000, CPU)
    assert torch.equal(whole[400:700], bits_of(123, 400, 300, CPU))


def test_both_halves_are_even_and_unlike() -> None:
    for half in (pair := halves(bits_of(key_of(0, "x", 1), 0, 2**18, CPU))):
        assert half.min() >= 0 and half.max() <= 0xFFFF
        counts = torch.bincount(half >> 8, minlength=256)
        assert ((counts - 1024).abs() < 5 * 1024**0.5).all()
    assert torch.corrcoef(torch.stack(pair).double())[0, 1].abs() < 0.01


def test_keys_differ_by_seed_name_and_step() -> None:
    keys = {key_of(seed, name, step) for seed in range(10) for name in ("a", "b") for step in range(50)}
    assert len(keys) == 1000
    assert all(-(2**31) <= key < 2**31 for key in keys)
    assert key_of(3, "a", 4) == key_of(3, "a", 4)
