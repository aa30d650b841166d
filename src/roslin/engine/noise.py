"""Random numbers by counting: a token's noise depends on seed, stream, prompt, step and token id, and on nothing else.

So a request draws the same numbers whatever shares its batch, on any device, and whatever its place in the batch. The
mixing function is SplitMix64's (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).
"""

import hashlib
import secrets
from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def fresh_seed() -> int:
    """A seed short enough to type in again."""
    return secrets.randbits(32)


def stream_key(seed: int, stream: int, prompt_ids: Sequence[int]) -> int:
    """The key of one answer's random stream: 64 bits.

    The prompt has a part in it, so that different questions asked with one seed do not lean towards the same tokens.
    """
    digest = hashlib.blake2b(array("q", prompt_ids).tobytes(), digest_size=8).digest()
    return mix(mix(seed & _MASK) + (stream + 1) * _STEP + int.from_bytes(digest, "little"))


def step_key(stream: int, step: int) -> int:
    """The key of one step in a stream, as a signed 64-bit integer (what a tensor holds)."""
    return _signed(mix(stream + (step + 1) * _STEP))


def step_keys(streams_B: npt.NDArray[np.uint64], steps_B: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The same of many."""
    value = streams_B + (steps_B.astype(np.uint64) + np.uint64(1)) * np.uint64(_STEP)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(_FIRST)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(_SECOND)
    keys_B: npt.NDArray[np.int64] = (value ^ (value >> np.uint64(31))).view(np.int64)
    return keys_B


def mix(value: int) -> int:
    """SplitMix64's output function on 64 bits."""
    value &= _MASK
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)


def exponentials(keys_R1: Tensor, ids_RK: Tensor) -> Tensor:
    """For each row's key and each id, one draw of the standard exponential distribution, in float64."""
    bits_RK = _mixed(ids_RK * _signed(_STEP) + keys_R1)
    # 52 bits and a half: never 0 and never 1, so that both logarithms to come are finite.
    uniform_RK = (_shifted(bits_RK, 12).double() + 0.5) * 2.0**-52
    return -torch.log(uniform_RK)


def _mixed(value: Tensor) -> Tensor:
    value = (value ^ _shifted(value, 30)) * _signed(_FIRST)
    value = (value ^ _shifted(value, 27)) * _signed(_SECOND)
    return value ^ _shifted(value, 31)


def _shifted(value: Tensor, bits: int) -> Tensor:
    """Shift right as if unsigned: torch's shift copies the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
