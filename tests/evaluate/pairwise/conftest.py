"""Endpoints that do as a test says, ended after it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pairwise_played import Played, Reply


@pytest.fixture
def played() -> Iterator[Callable[..., Played]]:
    made: list[Played] = []

    def make(play: Callable[[dict[str, Any], int], Reply]) -> Played:
        made.append(Played(play))
        return made[-1]

    yield make
    for one in made:
        one.end()
