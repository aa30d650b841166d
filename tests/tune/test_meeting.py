"""Processes find each other, and no others, in a store that outlives them."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import HashStore, Store

from roslin.errors import MachineError
from roslin.tune.meeting import meet


def all_meet(store: Store, count: int) -> list[Store]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda rank: meet(store, rank, count, 30), range(count)))


def test_all_get_the_same_place_and_a_new_one_each_time() -> None:
    """The store still has the calls and answers of the round before."""
    store = HashStore()
    for word in ("first", "second"):
        places = all_meet(store, 4)
        assert not places[3].check(["word"])
        places[0].set("word", word)
        assert [place.get("word").decode() for place in places] == [word] * 4


@pytest.mark.parametrize(("rank", "missing"), [(0, "Rank 1, 2"), (2, "Rank 0")])
def test_who_does_not_come_is_named(rank: int, missing: str) -> None:
    with pytest.raises(MachineError, match=rf"^{missing} did not come within 0\.1 s\."):
        meet(HashStore(), rank, 3, 0.1)
