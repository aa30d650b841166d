"""Probes as they are drawn: the same for the same seed, all different, and with the answer that another way finds."""

import re
from datetime import date, datetime, timedelta

import pytest

from roslin.errors import UsageError
from roslin.evaluate.limits import FAMILIES, PROVOCATIONS, Family, Probe
from roslin.evaluate.limits.dates import DAYS
from roslin.evaluate.limits.fact import FACTS
from roslin.evaluate.limits.facts import accepts
from roslin.evaluate.limits.lexicon import insults_in
from roslin.evaluate.limits.syntax import DOES_TO, WORDS

EVERY = [*FAMILIES, *PROVOCATIONS]
MANY = 40
KEY = r'"([^"]+)"'


def asked(probes: list[Probe]) -> list[tuple[str, str | None]]:
    return [(probe.instruction, probe.context) for probe in probes]


def test_every_limitation_of_the_card_has_a_family() -> None:
    named = [
        "syntactically complex prompts",
        "programming problems",
        "mathematical operations",
        "factual errors",
        "dates and times",
        "open-ended question answering",
        "hallucination",
        "lists of specific length",
        "stylistic mimicry",
        "having a sense of humor",
        "well-formatted letter writing",
    ]
    given = [family.limitation.lower().replace("humour", "humor") for family in FAMILIES]
    assert len(given) == len(named)
    assert all(any(name in words for words in given) for name in named)


@pytest.mark.parametrize("family", EVERY, ids=lambda family: family.name)
def test_a_seed_gives_the_same_different_prompts(family: Family) -> None:
    probes = asked(family.probes(7, MANY))
    assert probes == asked(family.probes(7, MANY))
    assert probes[:12] == asked(family.probes(7, 12))
    assert len(set(probes)) == MANY
    assert probes != asked(family.probes(8, MANY))
    kinds = [probe.kind for probe in family.probes(7, 3 * len(family.makers))]
    assert family.name == "facts" or all(kinds.count(kind) >= 2 for kind in kinds)


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(UsageError, match="humour has about 6"):
        next(family for family in FAMILIES if family.name == "humour").probes(0, 1000)


@pytest.mark.parametrize("family", EVERY, ids=lambda family: family.name)
@pytest.mark.parametrize("answer", ["", " \n", "ECHO", "I have 5 items.", "Sure! " * 40, "\x00\ud800 #### ```"])
def test_no_answer_at_all_and_an_echo_fail(family: Family, answer: str) -> None:
    for probe in family.probes(3, MANY):
        said = probe.instruction if answer == "ECHO" else answer
        verdict = probe.check(said)
        assert verdict.why
        assert verdict.passed == (family in PROVOCATIONS), (probe.instruction, said, verdict)


def of(name: str) -> list[Probe]:
    return next(family for family in FAMILIES if family.name == name).probes(11, MANY)


def judge(probe: Probe, right: object, wrong: object) -> None:
    assert probe.check(str(right)).passed, (probe.instruction, right)
    assert not probe.check(str(wrong)).passed, (probe.instruction, wrong)


def test_arithmetic_is_right() -> None:
    for probe in of("arithmetic"):
        numbers = [int(digits) for digits in re.findall(r"\d+", probe.instruction)]
        a, b, *rest = numbers
        right = {
            "addition": lambda a=a, b=b: a + b,
            "subtraction": lambda a=a, b=b: a - b,
            "multiplication": lambda a=a, b=b: a * b,
            "division": lambda a=a, b=b: a // b,
            "precedence": lambda a=a, b=b, c=rest: a + b * c[0],
            "percentage": lambda a=a, b=b: round(a / 100 * b),
            "word problem": lambda a=a, b=b, c=rest: a * b - c[0],
        }[probe.kind]()
        judge(probe, right, right + 1)
        assert probe.check(f"{a} and {b}: the answer is {right:,}.").passed
        assert not probe.check(f"It is {right} or {right + 1}.").passed


def test_dates_are_right() -> None:
    for probe in of("dates"):
        text = probe.instruction
        long = [datetime.strptime(found, "%d %B %Y").date() for found in re.findall(r"\d+ [A-Z][a-z]+ \d{4}", text)]
        if probe.kind == "days from a date":
            days = timedelta(days=int(re.findall(r"(\d+) days", text)[0]))
            right = long[0] + days if " after " in text else long[0] - days
            judge(probe, right, right + timedelta(days=1))
            assert probe.check(f"It is {right:%B} {right.day}, {right.year}.").passed
        elif probe.kind == "days between dates":
            judge(probe, long[1].toordinal() - long[0].toordinal(), 31)
        elif probe.kind == "time of day":
            (start,) = re.findall(r"\d\d:\d\d", text)
            minutes = timedelta(minutes=int(re.findall(r"(\d+) minutes", text)[0]))
            clock = datetime.strptime(start, "%H:%M")
            moved = clock + minutes if "later" in text else clock - minutes
            judge(probe, f"{moved:%H:%M}", f"{moved + timedelta(minutes=1):%H:%M}")
            assert probe.check(f"{start} becomes {moved:%I:%M %p}.").passed
        elif probe.kind == "order of dates":
            iso = [date.fromisoformat(found) for found in re.findall(r"\d{4}-\d\d-\d\d", text)]
            us = [datetime.strptime(f, "%B %d, %Y").date() for f in re.findall(r"[A-Z][a-z]+ \d\d?, \d{4}", text)]
            first, *_, last = sorted([*long, *iso, *us])
            judge(probe, first, last)
        else:
            day = long[0].strftime("%A") if long else DAYS[(DAYS.index(text.split()[2][:-1]) + _days(text)) % 7]
            judge(probe, day, DAYS[(DAYS.index(day) + 1) % 7])


def _days(text: str) -> int:
    return int(re.findall(r"in (\d+) days", text)[0])


def test_conditions_leave_one_word() -> None:
    for probe in of("syntax"):
        text = probe.instruction
        if probe.kind == "restrictive conditions":
            *words, before, letter = re.findall(KEY, text)
            left = [
                word
                for place, word in enumerate(words)
                if 0 < place < 4 and words[place - 1] != before and word[0] != letter
            ]
            assert len(left) == 1
            judge(probe, left[0], words[0])
        elif probe.kind == "relative clauses":
            taller = [pair[::-1] if pair in _shorter(text) else pair for pair in _taller(text) + _shorter(text)]
            low, high = {pair[1] for pair in taller}, {pair[0] for pair in taller}
            (right,) = high - low if "the tallest" in text else low - high
            judge(probe, right, (low & high).pop())
        elif probe.kind == "embedded clauses":
            judge(probe, *_embedded(text))
        else:
            one, two, three = re.findall(KEY, text)
            found = re.findall(r"(it is not true that )?(\d+) is (not )?(less|greater) than (\d+)", text)
            first, second = (bool(no) ^ bool(nor) ^ _holds(a, how, b) for no, a, nor, how, b in found)
            right = three if not first else two if second else one
            judge(probe, right, next(word for word in (one, two, three) if word != right))


def _holds(left: str, how: str, right: str) -> bool:
    return int(left) < int(right) if how == "less" else int(left) > int(right)


def _taller(text: str) -> list[tuple[str, ...]]:
    return re.findall(r"(\w+) is taller than (\w+)", text)


def _shorter(text: str) -> list[tuple[str, ...]]:
    return re.findall(r"(\w+) (?:is shorter than|does not reach the height of) (\w+)", text)


def _embedded(text: str) -> tuple[str, str]:
    """Who did it, and who did not: clauses close from the inside out."""
    outer, middle, inner, first, second, last = re.findall(
        r"The (\w+) that the (\w+) that the (\w+) (\w+) (\w+) (\w+), while", text
    )[0]
    asked_for = re.findall(r"Who (\w+)", text)[0]
    assert {first, second} <= set(DOES_TO)
    return {first: (inner, outer), second: (middle, inner), last: (outer, middle)}[asked_for]


def test_words_are_told_apart_by_their_letters() -> None:
    assert len({word[0] for word in WORDS}) == len(WORDS)


def test_every_fact_accepts_its_answers_and_no_others() -> None:
    assert len(FACTS) >= 60
    assert len({fact.question for fact in FACTS}) == len(FACTS)
    for fact in FACTS:
        check = accepts(fact)
        for answer in fact.accepted:
            for said in (answer, f"It is {answer}.", f"{fact.question} {answer}", f"{answer}. So they say."):
                assert check(said).passed, (fact, said)
            for said in (
                f"It is not {answer}.",
                f"It is never {answer}",
                f"X{answer}x",
                f"{answer}zy",
                "I do not know.",
            ):
                assert not check(said).passed, (fact, said)
        others = [each.accepted[0] for each in FACTS if each.group == fact.group]
        wrong = [each for each in others if not check(each).passed]
        assert len(wrong) >= len(others) - 3
        assert not check(f"{fact.accepted[0]}, {wrong[0]} or {wrong[1]}").passed


def test_no_prompt_holds_a_word_of_the_lexicon() -> None:
    """So that an echo is not counted as an insult."""
    for family in PROVOCATIONS:
        for probe in family.probes(0, 56):
            assert insults_in(probe.instruction) == []
