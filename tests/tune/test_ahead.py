"""Making things one ahead."""

import threading

import pytest

from roslin.tune.ahead import made_ahead


def test_all_come_in_order() -> None:
    assert list(made_ahead(range(5), lambda n: n * n)) == [(n, n * n) for n in range(5)]
    assert list(made_ahead([], str)) == []


def test_the_next_is_made_while_one_is_worked_on() -> None:
    made = threading.Event()

    def make(number: int) -> int:
        if number == 1:
            made.set()
        return number

    numbers = made_ahead(range(3), make)
    assert next(numbers) == (0, 0)
    assert made.wait(10)


def test_a_failure_comes_in_its_turn() -> None:
    numbers = made_ahead([1, 0], lambda n: 1 / n)
    assert next(numbers) == (1, 1.0)
    with pytest.raises(ZeroDivisionError):
        next(numbers)


def test_nobody_needs_to_take_them_all() -> None:
    numbers = made_ahead(range(10**9), str)
    assert next(numbers) == (0, "0")
    numbers.close()
