"""The course of a run: its updates, where it goes on, and its warm-up."""

from typing import Any

import pytest

from roslin.errors import InputError
from roslin.tune import Recipe
from roslin.tune.course import Course


def course(records: int, **settings: Any) -> Course:
    recipe = Recipe.parse({"model": "base", "records": ["-"], "output": "o"} | settings)
    return Course(recipe, [100] * records)


def test_dollys_warmup_in_runs_of_dollys_length() -> None:
    dolly = course(14_777)
    assert dolly.updates == pytest.approx(2 * 14_777 / 48, abs=2)
    assert dolly.warmup == 50


def test_a_short_run_warms_up_for_a_tenth_of_it() -> None:
    short = course(480)
    assert (short.updates, short.warmup) == (20, 2)


def test_a_warmup_beyond_the_run_is_refused() -> None:
    assert course(480, warmup_updates=20).warmup == 20
    with pytest.raises(InputError, match=r"warmup_updates is 21, and the run has 20 updates"):
        course(480, warmup_updates=21)


@pytest.mark.parametrize("epochs", [0.3, 1, 2.5])
def test_it_goes_on_with_the_very_rows_that_were_left(epochs: float) -> None:
    run = course(200, epochs=epochs, records_per_update=8)
    whole = list(run.after(0))
    assert len(whole) == run.updates
    for update in range(run.updates + 1):
        assert list(course(200, epochs=epochs, records_per_update=8).after(update)) == whole[update:]
