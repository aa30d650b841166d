"""The levels of instructions that this processor has, for tests that run at each."""

from collections.abc import Iterator

import pytest

from roslin.engine.cpu.library import LEVELS, library


def levels() -> list[int]:
    """Those of this processor."""
    found = library()
    if found is None:
        return []
    highest = found.roslin_level()
    there = [number for number in LEVELS if found.roslin_use_level(number) == number]
    found.roslin_use_level(highest)
    return there


@pytest.fixture(params=levels(), ids=LEVELS.get)
def level(request: pytest.FixtureRequest) -> Iterator[int]:
    found = library()
    assert found is not None
    highest = found.roslin_level()
    found.roslin_use_level(request.param)
    yield request.param
    found.roslin_use_level(highest)
