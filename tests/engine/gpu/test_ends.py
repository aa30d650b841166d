"""How sequences end on the device before the host has read their tokens, in the interpreter where there is no GPU."""

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from roslin.engine.gpu import ends, paged
from roslin.engine.graphs import Graphs
from roslin.engine.slots import NEVER, STOP_IDS
from roslin.engine.store import Store
from roslin.model import Decoder
from tiny_decoders import VOCABULARY, plain_logits, tiny_decoder

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged, "PROGRAMS", 8)
    monkeypatch.setattr(ends, "ROWS", 4)
    paged._scratch.cache_clear()


def store_of(decoder: Decoder, sequences: int, stops: Iterable[tuple[int, set[int]]] = ()) -> Store:
    """With a sequence in each of the first slots, that ends at a position or with one of some ids."""
    store = Store(decoder, sequences, sequences, kernels=True)
    store.pool.make_all()
    for last, stop_ids in stops:
        slot = store.slots.take(last, stop_ids)
        store.slots.write(slot, store.pool.take(1) or [])
    store.resident.update()
    return store


def ints(*numbers: int) -> Tensor:
    return torch.tensor(numbers, device=DEVICE)


def test_what_nobody_knows_is_the_latest_of_its_slot_until_its_sequence_has_ended() -> None:
    resident = store_of(
        tiny_decoder("gpt_neox").to(DEVICE), 5, [(9, {3}), (NEVER, set()), (4, set()), (8, {7})]
    ).resident
    resident.latest_S.copy_(ints(50, 51, 52, 53, 54, 55))
    slots, positions = ints(0, 1, 2, 3, 0, 5), ints(9, 400, 5, 8, 10, -1)
    assert [x.tolist() for x in ends.begin(resident, slots, positions)] == [
        [50, 51, 52, 53, 50, 55],
        [9, 400, 5, 8, 10, 0],
        [9, 400, -1, 8, -1, -1],
    ]
    # Where the host knows the token, it knows that its sequence goes on.
    known = ints(-1, 6, 7, -1, 8, 0)
    assert [x.tolist() for x in ends.begin(resident, slots, positions, known)] == [
        [50, 6, 7, 53, 8, 0],
        [9, 400, 5, 8, 10, 0],
        [9, 400, 5, 8, 10, -1],
    ]


def test_a_stop_id_ends_its_sequence_and_nothing_is_kept_of_what_is_nobodys() -> None:
    stops = [(90, {3, 11}), (90, {3}), (90, set(range(STOP_IDS))), (90, set(range(STOP_IDS + 1))), (90, {3})]
    resident = store_of(tiny_decoder("gpt_neox").to(DEVICE), 6, stops).resident
    ends.keep(resident, ints(0, 1, 2, 3, 4, 6), ints(7, 8, 9, 10, -1, -1), ints(11, 11, STOP_IDS - 1, 0, 3, 3))
    assert resident.latest_S.tolist() == [11, 11, STOP_IDS - 1, 0, 0, 0, 0]
    # One more than the device looks out for: that sequence the host alone ends.
    assert resident.ends_SX[:, 0].tolist() == [7, 90, 9, 90, 90, -1, -1]


def test_a_slot_that_is_taken_again_has_the_ends_of_its_new_sequence() -> None:
    store = store_of(tiny_decoder("gpt_neox").to(DEVICE), 2, [(90, {3}), (90, {3})])
    ends.keep(store.resident, ints(0, 1), ints(7, 7), ints(3, 3))
    store.slots.free(1)
    assert store.slots.take(30, {5}) == 1
    store.resident.update()
    assert store.resident.ends_SX[:2].tolist() == [[7, 3] + [-1] * (STOP_IDS - 1), [30, 5] + [-1] * (STOP_IDS - 1)]


def greedily(decoder: Decoder, first: int, count: int) -> list[int]:
    ids = [first]
    for _ in range(count):
        ids.append(int(plain_logits(decoder, ids)[-1, :VOCABULARY].argmax()))
    return ids


@pytest.mark.parametrize("family", ["gpt_neox", "qwen2"])
def test_steps_that_begin_before_anybody_has_read_a_token_write_nothing_for_who_has_ended(family: str) -> None:
    """Six of them one behind the other: one ends with a stop id, one at its last position, one never."""
    decoder = tiny_decoder(family)
    expected = [greedily(decoder, first, 6) for first in (3, 9, 20)]
    place = next(n for n in range(1, 5) if expected[0].index(expected[0][n]) == n)
    store = store_of(decoder.to(DEVICE), 4, [(NEVER, {expected[0][place]}), (3, set()), (NEVER, set())])
    cache, resident = store.cache, store.resident
    with torch.no_grad():
        graphs = Graphs(decoder, cache, resident, VOCABULARY, 4, capture=torch.cuda.is_available())
        resident.latest_S[:3] = ints(3, 9, 20)
        drawn = []
        for position in range(6):
            ids, _ = graphs.drawn([0, 1, 2], [position] * 3, None)
            drawn.append(ids.clone())
    last = [place - 1, 3, 5]
    for slot, its in enumerate(torch.stack(drawn, 1).tolist()):
        assert its[: last[slot] + 1] == expected[slot][1 : last[slot] + 2]
    assert resident.latest_S[:3].tolist() == [its[end + 1] for its, end in zip(expected, last, strict=True)]
    for keys, values in cache.layers:
        for slot, end in enumerate(last):
            block = int(store.slots.rows_SW[slot, 0])
            for kept in (keys, values):
                assert kept[block, :, : end + 1].abs().sum((0, 2)).min() > 0
                assert not kept[block, :, end + 1 :].any()
