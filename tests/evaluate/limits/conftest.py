"""Finds a probe by words of its prompt."""

from collections.abc import Callable
from random import Random

import pytest

from roslin.evaluate.limits import FAMILIES, Family, Probe

Asking = Callable[..., Probe]


@pytest.fixture(scope="session")
def asking() -> Asking:
    """The first probe of a family, by its name, whose instruction and context hold all the words."""

    def find(family: str | Family, *words: str) -> Probe:
        [found] = [each for each in FAMILIES if each.name == family] if isinstance(family, str) else [family]
        rng = Random(0)
        for _ in range(20_000):
            for make in found.makers:
                probe = make(rng)
                if all(word in f"{probe.kind} {probe.instruction} {probe.context}" for word in words):
                    return probe
        raise AssertionError(f"{found.name} never asks {words}")

    return find
