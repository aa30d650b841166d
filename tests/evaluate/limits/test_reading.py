"""Reading an answer: words, sentences and numbers as a person would read them."""

from datetime import date, time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roslin.evaluate.limits.dates import dates_in, times_in
from roslin.evaluate.limits.lists import items_of
from roslin.evaluate.limits.reading import (
    affirms,
    echoes,
    first_sentence,
    named_in_order,
    names,
    numbers,
    repeats,
    sentences,
    words,
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("12 + 7 = 19", [12, 7, 19]),
        ("1,204 apples, 3.5 kg", [1204, Fraction(7, 2)]),
        ("-5 or −6, but 12-7", [-5, -6, 12, 7]),
        ("H2O at 100°C, 19kg, 50%", [100, 19, 50]),
        ("The answer is 42.", [42]),
        ("two plus twelve, and one", [2, 12]),
        ("1,23 and 12,3456", [1, 23, 12, 3456]),
        ("**-5**, (-6), negative 7, f(2)-8", [-5, -6, -7, 2, 8]),
        ("none", []),
    ],
)
def test_numbers(text: str, found: list[int]) -> None:
    assert numbers(text) == found


def test_a_number_that_python_does_not_read_is_a_wrong_one() -> None:
    [whole], [part] = numbers("9" * 6000), numbers("0." + "3" * 6000)
    assert whole > 10**99
    assert 0 < Fraction(1, 3) - part < Fraction(1, 10**98)


@given(st.integers(-(10**9), 10**9))
def test_any_whole_number_is_read(number: int) -> None:
    assert numbers(f"It is {number}.") == numbers(f"It is {number:,}") == [number]


def test_sentences() -> None:
    text = 'One 3.5 thing. "Two!" Three?\n\nFour, e.g. this'
    assert sentences(text) == ["One 3.5 thing.", '"Two!"', "Three?", "Four, e.g. this"]
    assert first_sentence("Paris. It is larger than London.") == "Paris."
    assert first_sentence("What is it? It is Paris.") == "It is Paris."
    assert first_sentence("") == first_sentence("What?") == ""


def test_words_and_names() -> None:
    assert words("It's 12 O’Clock — café!") == ["it's", "12", "o'clock", "café"]
    assert names("The capital is BRASÍLIA.", "Brasilia")
    assert names("Addis\nAbaba", "Addis Ababa")
    assert not names("Parisian", "Paris")
    assert not names("1000 or 2,100.5", "100")
    assert named_in_order("b then a, not c", ["a", "b", "d"]) == ["b", "a"]
    assert affirms("Canberra, not Sydney", "Canberra")
    assert not affirms("It is not called Sydney", "Sydney")
    assert affirms("It is not Sydney; Sydney is larger", "Sydney")


def test_echoes_and_circles() -> None:
    prompt = "Why is the sea salty? Answer in a few sentences."
    assert echoes("why is the sea salty", prompt)
    assert echoes(f"Question: {prompt}", prompt)
    assert not echoes("The sea is salty because rivers carry minerals.", prompt)
    assert repeats("so it is " * 6)
    assert not repeats("The sea is salty because rivers carry minerals.")
    assert not repeats("")


def test_dates_and_times() -> None:
    day = date(2021, 3, 20)
    for text in ("2021-03-20", "20 March 2021", "March 20, 2021", "the 20th of March, 2021", "Mar. 20th 2021"):
        assert dates_in(text) == [day], text
    assert dates_in("2021-02-30, 31 April 2020 and 12021-01-011") == []
    for text in ("16:25", "4:25 pm", "04:25 P.M.", "16:25:00"):
        assert times_in(text) == [time(16, 25)], text
    assert times_in("12:05 am, 24:10, 12:75, 1:2") == [time(0, 5)]


@pytest.mark.parametrize(
    ("answer", "items"),
    [
        ("1. Apple\n2. Pear\n3. Plum", ["Apple", "Pear", "Plum"]),
        ("Here are three:\n\n- Apple\n- Pear\n- Plum\n\nEnjoy!", ["Apple", "Pear", "Plum"]),
        ("Apple\nPear\nPlum", ["Apple", "Pear", "Plum"]),
        ("Fruits:\nApple\nPear", ["Apple", "Pear"]),
        ("apple, pear, and plum.", ["apple", "pear", "plum"]),
        ("Three fruits: apple, pear and plum", ["apple", "pear", "plum"]),
        ("(1) Apple\n(2) **Pear**", ["Apple", "Pear"]),
        ("apple, pear, plum\n\nLet me know if you need more!", ["apple", "pear", "plum"]),
        ("Sure!\nFruits: apple, pear, plum\nEnjoy!", ["apple", "pear", "plum"]),
        ("I have 5 items.", []),
        ("1.\n2.\n3.", ["", "", ""]),
        ("", []),
    ],
)
def test_items(answer: str, items: list[str]) -> None:
    assert items_of(answer) == items
