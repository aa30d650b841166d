"""What guessing costs where it loses, and saves where it wins, in the time of a clock that only passes move on."""

import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest

from priced import STOP, VOCABULARY, WORDS, Price, Priced, copying, disturbed, linear
from roslin.engine import GREEDY, Engine, Request
from roslin.engine.ledger import START, Ledger
from roslin.engine.lookup import Lookup, Matches

CHEAP, DEAR = 0.05, 1.0
"""What a row more of a pass costs, in passes: next to nothing, or as much as the pass."""
MANY, FEW = 100, 40
"""Requests that an engine answers one after the other: to lose as little as it may, and to win."""


class Run:
    """An engine that answers one request after the other, or several at once; the seconds of each."""

    def __init__(self, clock: list[float], price: Price, draft: tuple[Price, float] | None, **how: Any) -> None:
        self.target = Priced(clock, price)
        self.draft = Priced(clock, *draft) if draft else None
        self.seconds: list[float] = []
        self._engine = Engine(self.target, VOCABULARY, 4, draft=self.draft, **how)
        self._clock = clock

    def answer(self, prompt: list[int], answer: list[int], new: int, at_once: int) -> None:
        for network in (self.target, self.draft):
            if network is not None:
                network.script = [*prompt[1:], *answer, STOP]
        started = self._clock[0]
        done = self._engine.run([Request(prompt, new, GREEDY, frozenset([STOP]))] * at_once)
        assert all(list(one.ids) == answer for one in done)
        self.seconds.append(self._clock[0] - started)


@pytest.fixture
def ratios(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """How many times as long requests take with guesses as without, by quarters of them."""
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def measured(
        price: Callable[[], Price], draft: tuple[Price, float] | None = None, *, requests: int = MANY, prompt: int = 40,
        new: int = 24, said: int | None = None, copies: float = 0.0, at_once: int = 1, ahead: bool = False,
        between: Callable[[Run, int], None] = lambda run, number: None,
    ) -> list[float]:  # fmt: skip
        runs = [
            Run(clock, price(), None, speculate=False, ahead=ahead, weights_stay=False),
            Run(clock, price(), draft, ahead=ahead, weights_stay=False),
        ]
        for number in range(requests):
            for run in runs:
                chance = Random(number)
                text = [chance.randrange(WORDS) for _ in range(prompt)]
                between(run, number)
                run.answer(text, copying(chance, text, said or new, copies), new, at_once)
        quarter = requests // 4
        parts = [[sum(run.seconds[n : n + quarter]) for n in range(0, requests, quarter)] for run in runs]
        return [guessing / plain for plain, guessing in zip(*parts, strict=True)]

    return measured


def whole(ratios: Sequence[float]) -> float:
    return sum(ratios) / len(ratios)


Ratios = Callable[..., list[float]]


LOSING = {
    "as large as the model": (CHEAP, 1.0, 0.8, {}),
    "as large, ahead": (CHEAP, 1.0, 0.8, {"ahead": True}),
    "half as large, long texts": (CHEAP, 0.5, 0.5, {"prompt": 300}),
    "wrong": (CHEAP, 0.1, 0.0, {}),
    "rows at the full price": (DEAR, 0.05, 0.5, {}),
    "short answers": (0.2, 0.3, 0.8, {"prompt": 300, "new": 100, "said": 6}),
}
LOSING_TOO = {
    "rows at the full price, mostly right": (DEAR, 0.05, 0.9, {}),
    "as large, of four": (CHEAP, 1.0, 0.8, {"at_once": 4}),
    "wrong, of four, ahead": (CHEAP, 0.1, 0.0, {"at_once": 4, "ahead": True}),
    "wrong, long texts": (CHEAP, 0.1, 0.0, {"prompt": 300}),
}


@pytest.mark.parametrize(
    ("row", "draft", "right", "how"),
    [
        *(pytest.param(*case, id=name) for name, case in LOSING.items()),
        *(pytest.param(*case, id=name, marks=pytest.mark.full) for name, case in LOSING_TOO.items()),
    ],
)
def test_a_draft_that_loses_costs_next_to_nothing(
    ratios: Ratios, row: float, draft: float, right: float, how: dict[str, int]
) -> None:
    found = ratios(lambda: linear(1.0, row), (linear(draft, draft * row), right), **how)
    assert whole(found) < 1.02
    assert all(part < 1.01 for part in found[1:])


@pytest.mark.parametrize("copies", [0.0, 0.2, 0.6])
def test_look_ups_at_the_full_price_of_rows_cost_next_to_nothing(ratios: Ratios, copies: float) -> None:
    assert whole(ratios(lambda: linear(1.0, DEAR), copies=copies)) < 1.01


def test_what_looking_up_takes_counts_too(ratios: Ratios, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a host so slow that it takes half a pass, it is left off."""
    passes_only, read = time.perf_counter, Lookup.read
    spent = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: passes_only() + spent[0])

    def slow(self: Lookup, ids: Sequence[int], others: Matches | None = None) -> None:
        spent[0] += 0.5
        read(self, ids, others)

    monkeypatch.setattr(Lookup, "read", slow)
    ratios(lambda: linear(1.0, CHEAP), copies=0.1)
    assert START / 2 < spent[0] < START + 0.02 * MANY * 24


@pytest.mark.parametrize(
    ("row", "draft", "right", "how", "most"),
    [
        (CHEAP, 0.1, 0.8, {}, 0.7),
        (CHEAP, 0.1, 0.8, {"at_once": 3}, 0.8),
        (CHEAP, 0.05, 0.9, {"ahead": True}, 0.6),
        (CHEAP, 0.1, 0.8, {"prompt": 300, "new": 80}, 0.75),
        (0.3, 0.1, 0.8, {"new": 40}, 0.9),
    ],
)
def test_a_draft_that_wins_is_used(
    ratios: Ratios, row: float, draft: float, right: float, how: dict[str, int], most: float
) -> None:
    found = ratios(lambda: linear(1.0, row), (linear(draft, draft * row), right), requests=FEW, **how)
    assert all(part < most for part in found)


@pytest.mark.parametrize(("row", "copies", "most"), [(CHEAP, 0.6, 0.7), (CHEAP, 0.2, 0.95), (0.3, 0.6, 0.9)])
def test_look_ups_that_win_are_used(ratios: Ratios, row: float, copies: float, most: float) -> None:
    assert whole(ratios(lambda: linear(1.0, row), copies=copies, requests=FEW, new=40)) < most


@pytest.mark.full
def test_disturbed_passes_change_little(ratios: Ratios) -> None:
    lost = ratios(lambda: disturbed(linear(1.0, CHEAP)), (disturbed(linear(1.0, CHEAP), 1), 0.8))
    won = ratios(lambda: disturbed(linear(1.0, CHEAP)), (disturbed(linear(0.1, CHEAP / 10), 1), 0.8), requests=FEW)
    assert whole(lost) < 1.05  # the noise of both runs is in it
    assert whole(won) < 0.85


def test_a_draft_that_turns_bad_is_left_off_and_one_that_turns_good_is_found(ratios: Ratios) -> None:
    def turning(first: float, then: float) -> Callable[[Run, int], None]:
        def turn(run: Run, number: int) -> None:
            if run.draft is not None:
                run.draft.right = first if number < MANY // 2 else then

        return turn

    price, draft = (lambda: linear(1.0, CHEAP)), linear(0.1, CHEAP / 10)
    good, _, worse, bad = ratios(price, (draft, 0.0), between=turning(0.8, 0.0))
    assert good < 0.7 and worse < 1.03 and bad < 1.01
    bad, _, _, good = ratios(price, (draft, 0.0), between=turning(0.0, 0.8))
    assert bad < 1.03 and good < 0.75


def test_a_first_text_is_read_in_pieces_that_grow_while_it_is_cheap(ratios: Ratios) -> None:
    rows: dict[float, list[int]] = {}

    def note(run: Run, number: int) -> None:
        if run.draft is not None and number == 3:
            rows[run.draft.price(1)] = list(run.draft.rows)

    for seconds in (0.05, 1.0):
        ratios(lambda: linear(1.0, CHEAP), (linear(seconds, seconds / 20), 0.8), prompt=300, requests=4, between=note)
    assert rows[0.05][:6] == [1, 1, 1, 4, 16, 64]
    assert rows[1.0] == [1, 1, 1]


def test_a_ledger_lets_no_more_be_lost_than_a_start_and_a_hundredth() -> None:
    ledger, lost = Ledger(), 0.0
    for _ in range(20000):
        ledger.passed()
        if ledger.allows():
            ledger.book(-1.5)
            lost += 1.5
    assert START < lost < START + 0.015 * 20000


def test_a_ledger_remembers_wins_and_bounds_what_one_loss_weighs() -> None:
    ledger = Ledger()
    assert ledger.allows(START - 1) and not ledger.allows(START)
    for _ in range(100):
        ledger.book(5.0)
    assert ledger.allows(2 * START - 1) and not ledger.allows(2 * START)
    ledger.book(-1000.0)
    assert ledger.allows()
