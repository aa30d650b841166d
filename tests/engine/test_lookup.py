"""The lookup against a scan of the whole sequence."""

from itertools import islice
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roslin.engine.lookup import LONGEST, SHORTEST, Lookup


def scanned(ids: list[int]) -> int | None:
    """The place behind the last earlier place of the latest tokens, as many of them as are found."""
    for length in range(min(LONGEST, len(ids) - 1), SHORTEST - 1, -1):
        for place in range(len(ids) - 1, length - 1, -1):
            if ids[place - length : place] == ids[-length:]:
                return place
    return None


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 3), min_size=1, max_size=60), prompt=st.integers(1, 60), count=st.integers(0, 9))
def test_it_guesses_what_followed_where_the_latest_tokens_last_stood(ids: list[int], prompt: int, count: int) -> None:
    lookup = Lookup(min(prompt, len(ids)))
    for length in range(min(prompt, len(ids)), len(ids) + 1):
        so_far = ids[:length]
        lookup.read(so_far)
        place = scanned(so_far)
        expected: list[int] = []
        for _ in range(count if place is not None else 0):
            assert place is not None
            expected.append([*so_far, *expected][place + len(expected)])
        assert lookup.guess(so_far, count) == expected


@pytest.mark.parametrize(("right", "low", "high"), [(None, 0.5, 0.5), (False, 0, 0.15), (True, 0.7, 1)])
def test_what_it_hopes_for_follows_its_own_success(right: bool | None, low: float, high: float) -> None:
    """Of matches of two and three tokens, behind which stands what followed in the prompt, or never does."""
    prompt = list(range(200))
    firsts = Random(0).sample(range(0, 190, 5), 30) if right is not None else []
    answer = [id for first in firsts for id in [*range(first, first + (4 if right else 2)), 300 + first]]
    lookup = Lookup(len(prompt))
    lookup.read([*prompt, *answer, 196, 197])
    assert low <= next(lookup.chances()) <= high


def test_longer_matches_are_trusted_more_and_chances_fall_along_a_guess() -> None:
    copied = list(range(30))
    chances = []
    for length in (2, 6, 20):
        lookup = Lookup(len(copied))
        lookup.read([*copied, *copied[:length]])
        own = list(islice(lookup.chances(), 5))
        assert own == sorted(own, reverse=True)
        chances.append(own[0])
    assert chances == sorted(chances)
    lookup = Lookup(1)
    lookup.read([1, 2, 3])
    assert list(lookup.chances()) == []
