"""Dates and times: reckoning with the calendar and the clock."""

import re
from calendar import day_name, month_name
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from random import Random

from roslin.evaluate.limits.probe import Check, Family, Probe, Verdict
from roslin.evaluate.limits.rules import only_names, states_number

MONTHS = [name.lower() for name in month_name]
DAYS = tuple(day_name)
_MONTH = "|".join(f"{name}|{name[:3]}" for name in MONTHS[1:])
_DATES = re.compile(
    r"(?<!\d)(?P<y1>\d{4})-(?P<m1>\d{1,2})-(?P<d1>\d{1,2})(?!\d)"
    rf"|(?<!\d)(?P<d2>\d{{1,2}})(?:st|nd|rd|th)?(?:\s+of)?\s+(?P<m2>{_MONTH})\.?,?\s+(?P<y2>\d{{4}})"
    rf"|\b(?P<m3>{_MONTH})\.?\s+(?P<d3>\d{{1,2}})(?:st|nd|rd|th)?,?\s+(?P<y3>\d{{4}})",
    re.IGNORECASE,
)
_TIMES = re.compile(r"(?<![\d:])(?P<h>\d{1,2}):(?P<m>\d{2})(?::00)?(?![\d:])\s*(?P<half>[ap]\.?m\b)?", re.IGNORECASE)


def dates_in(text: str) -> list[date]:
    """Dates written as 2021-03-20, 20 March 2021 or March 20, 2021, in order; one that no calendar has is left out."""
    found = []
    for match in _DATES.finditer(text):
        year, month, day = (next(v for k in "123" if (v := match[f"{part}{k}"])) for part in "ymd")
        number = int(month) if month.isdigit() else next(i for i in range(1, 13) if MONTHS[i][:3] == month[:3].lower())
        try:
            found.append(date(int(year), number, int(day)))
        except ValueError:
            continue
    return found


def times_in(text: str) -> list[time]:
    """Times of day written as 16:25 or 4:25 pm, in order; one that no clock shows is left out."""
    found = []
    for match in _TIMES.finditer(text):
        hour, minute, half = int(match["h"]), int(match["m"]), (match["half"] or "").lower()[:1]
        if half and 1 <= hour <= 12:
            hour = hour % 12 + (12 if half == "p" else 0)
        if hour < 24 and minute < 60:
            found.append(time(hour, minute))
    return found


def _states(right: date | time, known: date | time, read: Callable[[str], list[date] | list[time]]) -> Check:
    """What the answer states besides what was given is the right one alone."""

    def check(answer: str) -> Verdict:
        new = [value for value in read(answer) if value != known]
        said = ", ".join(map(str, dict.fromkeys(new))) or "none"
        return Verdict(set(new) == {right}, f"states {said}; right is {right}")

    return check


def _day(rng: Random) -> date:
    return date(rng.randint(1950, 2030), 1, 1) + timedelta(days=rng.randrange(365))


def _written(day: date) -> str:
    return f"{day.day} {month_name[day.month]} {day.year}"


def later(rng: Random) -> Probe:
    """A number of days before or after a date."""
    day, days = _day(rng), rng.randint(9, 60)
    after = rng.random() < 0.5
    right = day + timedelta(days=days if after else -days)
    which = "after" if after else "before"
    instruction = f"Which date is {days} days {which} {_written(day)}? Write it as YYYY-MM-DD."
    return Probe("days from a date", instruction, _states(right, day, dates_in))


def weekday(rng: Random) -> Probe:
    """The day of the week of a date, or some days after a day of the week."""
    if rng.random() < 0.5:
        day = _day(rng)
        question = f"Which day of the week was or will be {_written(day)}?"
        return Probe("day of the week", f"{question} Answer with one word.", only_names(DAYS[day.weekday()], DAYS))
    today, days = rng.randrange(7), rng.choice([n for n in range(9, 60) if n % 7])
    question = f"Today is {DAYS[today]}. Which day of the week will it be in {days} days?"
    check = only_names(DAYS[(today + days) % 7], DAYS)
    return Probe("day of the week", f"{question} Answer with one word.", check)


def between(rng: Random) -> Probe:
    """Days from one date to another, at most some months later."""
    first = _day(rng)
    days = rng.randint(32, 120)
    last = first + timedelta(days=days)
    stated = (first.day, first.year, last.day, last.year)
    question = f"How many days is it from {_written(first)} to {_written(last)}?"
    return Probe("days between dates", f"{question} Give only the number, in digits.", states_number(days, stated))


def clock(rng: Random) -> Probe:
    """Minutes before or after a time of day; the day may change."""
    start, minutes = datetime(2020, 1, 1, rng.randrange(24), rng.randrange(60)), rng.randint(35, 400)
    after = rng.random() < 0.5
    end = start + timedelta(minutes=minutes if after else -minutes)
    when = "later" if after else "earlier"
    instruction = (
        f"A clock shows {start:%H:%M}. What time was or will it be {minutes} minutes {when}? "
        "Write it as HH:MM on the 24-hour clock."
    )
    return Probe("time of day", instruction, _states(end.time(), start.time(), times_in))


def earliest(rng: Random) -> Probe:
    """The earliest of three days of one year, written in different ways."""
    days = rng.sample(range(364), 3)
    year = rng.randint(1950, 2030)
    one, two, three = (date(year, 1, 1) + timedelta(days=number) for number in days)
    right = min(one, two, three)
    ways = f"{_written(one)}, {two.isoformat()} and {month_name[three.month]} {three.day}, {three.year}"
    instruction = f"Which of these dates is the earliest: {ways}? Write it as YYYY-MM-DD."

    def check(answer: str) -> Verdict:
        found = dates_in(answer)
        said = ", ".join(map(str, dict.fromkeys(found))) or "none"
        return Verdict(set(found) == {right}, f"states {said}; right is {right}")

    return Probe("order of dates", instruction, check)


FAMILY = Family(
    name="dates",
    limitation="Dates and times",
    rule="states the one right date, time, weekday or number of days, as datetime reckons it, and no other",
    blind="reckoning only, on the Gregorian calendar without time zones; a guess passes one weekday in seven",
    max_new_tokens=24,
    makers=(later, weekday, clock, between, earliest),
)
