"""Learning rates by hand."""

import pytest

from roslin.tune.schedule import learning_rate


def rates(schedule: str, warmup: int = 4, total: int = 12) -> list[float]:
    return [
        learning_rate(update, peak=1.0, schedule=schedule, warmup=warmup, total=total) for update in range(1, total + 1)
    ]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_warm_up_is_linear_and_reaches_the_peak(schedule: str) -> None:
    assert rates(schedule)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_constant_stays() -> None:
    assert set(rates("constant")[3:]) == {1.0}


def test_linear_falls_evenly_to_one_step_above_zero() -> None:
    assert rates("linear")[4:] == pytest.approx([1 - i / 8 for i in range(8)])


def test_cosine_is_half_way_in_the_middle() -> None:
    found = rates("cosine")
    assert found[8] == pytest.approx(0.5)
    assert found[4:] == sorted(found[4:], reverse=True)
    assert found[-1] > 0


def test_without_warm_up_the_first_update_has_the_peak() -> None:
    assert rates("linear", warmup=0)[0] == 1.0
