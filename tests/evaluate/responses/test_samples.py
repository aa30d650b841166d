"""The page of unselected samples."""

import random
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from roslin.errors import UsageError
from roslin.evaluate.responses import Judged, LeftOut, ResponseReport, samples_page

MakeJudged = Callable[..., Judged]
MakeReport = Callable[..., ResponseReport]
EMPTY_TAGS = {"meta"}


class Balance(HTMLParser):
    """Checks that every tag is closed, and collects the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not {"src", "href"} & {name for name, _ in attrs}
        if tag not in EMPTY_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def text_of(page: str) -> str:
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    return "".join(parser.text)


def numbers(page: str) -> list[int]:
    return [int(number) for number in re.findall(r"<h2>Record (\d+)", page)]


def test_the_records_are_the_first_of_a_seeded_shuffle(judged: MakeJudged, report: MakeReport) -> None:
    found = report([judged(n) for n in range(1, 31)])
    order = list(range(1, 31))
    random.Random(7).shuffle(order)
    assert numbers(samples_page([found], count=12, seed=7)) == order[:12]
    assert numbers(samples_page([found], count=99, seed=7)) == order
    assert numbers(samples_page([found], seed=8)) != order[:20]
    assert "The first 12 of 30 held-out records after a shuffle with seed 7" in samples_page([found], count=12, seed=7)


def test_failures_are_shown_and_marked(judged: MakeJudged, report: MakeReport) -> None:
    base = report([judged(1, answer="", empty=True), judged(2, answer="on and on", stopped=False, loops=True)], "base")
    tuned = report([judged(1, answer="Tea is <b>hot</b> & good."), judged(2, echoed=True, keys=True)], "tuned")
    page = samples_page([base, tuned], seed=0)
    shown = text_of(page)
    for flag in (
        "empty",
        "did not stop",
        "repeats itself in a loop",
        "echoes the question",
        "holds a key of the prompt",
    ):
        assert f'<span class="flag">{flag}</span>' in page
    assert "Tea is <b>hot</b> & good." in shown
    assert "<b>hot" not in page
    for part in ("What is tea?", "A hot drink.", "on and on", "base", "tuned", "seed 0", "at most 256 new tokens"):
        assert part in shown


def test_nothing_is_fetched_from_outside(judged: MakeJudged, report: MakeReport) -> None:
    page = samples_page([report([judged(1)])])
    assert not re.search(r"https?://|<script|@import|url\(", page)


def test_a_record_that_one_model_could_not_take_says_why(judged: MakeJudged, report: MakeReport) -> None:
    one = report([judged(1), judged(2)], "long")
    other = replace(report([judged(2)], "short"), left_out=[LeftOut(1, "open_qa", "9 tokens, and 8 positions")])
    shown = text_of(samples_page([one, other]))
    assert "not asked: 9 tokens, and 8 positions" in shown
    assert "left out as too long: 1 of 2 records" in shown


def test_a_page_without_samples_is_refused(judged: MakeJudged, report: MakeReport) -> None:
    for reports, count in (([], 3), ([report([judged(1)])], 0)):
        with pytest.raises(UsageError):
            samples_page(reports, count=count)
