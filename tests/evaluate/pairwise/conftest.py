"""Endpoints that do as a test says, ended after it."""

from collections.abc import Callable, Iterator

import pytest

from pairwise_played import Played, playing


@pytest.fixture
def played() -> Iterator[Callable[..., Played]]:
    with playing() as make:
        yield make
