"""How an update's rows are dealt to processes."""

from hypothesis import given
from hypothesis import strategies as st

from roslin.tune.dealing import NOTHING, deal, padded
from roslin.tune.step import accumulate
from tiny_decoders import tiny_decoder

ROWS = st.lists(st.lists(st.integers(1, 500), min_size=1, max_size=5), min_size=1, max_size=30)


@given(ROWS, st.integers(1, 9))
def test_every_row_goes_to_one_process_and_loads_differ_by_a_row_at_most(tokens: list[list[int]], count: int) -> None:
    lengths = [length for row in tokens for length in row]
    places = iter(range(len(lengths)))
    rows = [[next(places) for _ in row] for row in tokens]
    dealt = deal(rows, lengths, count)
    assert sorted(row for part in dealt for row in part) == rows
    assert all(part == sorted(part) for part in dealt)
    assert len(dealt) == count
    loads = [sum(lengths[i] for row in part for i in row) for part in dealt]
    assert max(loads) - min(loads) <= max(sum(row) for row in tokens)


def test_one_process_gets_its_rows_as_they_are() -> None:
    rows = [[0], [1, 2], [3]]
    assert deal(rows, [5, 9, 2, 7], 1) == [rows]
    assert padded([], 2) == [NOTHING, NOTHING]


def test_an_empty_pass_gives_every_parameter_a_gradient_of_zero() -> None:
    """All processes exchange the same gradients in every pass, so none may be missing."""
    decoder = tiny_decoder("gptj")  # whose head has a bias
    assert accumulate(decoder, [NOTHING], answers=10) == 0
    assert all(p.grad is not None and not p.grad.any() for p in decoder.parameters())
