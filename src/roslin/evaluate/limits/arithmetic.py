"""Mathematical operations on numbers drawn at random."""

from random import Random

from roslin.evaluate.limits.probe import Family, Probe
from roslin.evaluate.limits.rules import states_number

ONLY = "Give only the number, in digits."


def _probe(kind: str, question: str, right: int, stated: tuple[int, ...], steps: tuple[int, ...] = ()) -> Probe:
    return Probe(kind, f"{question} {ONLY}", states_number(right, stated, steps))


def addition(rng: Random) -> Probe:
    """Numbers of two to four digits."""
    a, b = rng.randint(11, 9999), rng.randint(11, 999)
    return _probe("addition", f"What is {a} + {b}?", a + b, (a, b))


def subtraction(rng: Random) -> Probe:
    """The difference is neither of the numbers, and may be negative."""
    a, b = rng.randint(11, 999), rng.randint(11, 999)
    return subtraction(rng) if a in (b, 2 * b) else _probe("subtraction", f"What is {a} - {b}?", a - b, (a, b))


def multiplication(rng: Random) -> Probe:
    """Two digits by one or two."""
    a, b = rng.randint(11, 99), rng.randint(3, 29)
    return _probe("multiplication", f"What is {a} times {b}?", a * b, (a, b))


def division(rng: Random) -> Probe:
    """Without a remainder."""
    right, b = rng.randint(11, 99), rng.randint(3, 9)
    return _probe("division", f"What is {right * b} divided by {b}?", right, (right * b, b))


def precedence(rng: Random) -> Probe:
    """A product inside a sum."""
    a, b, c = rng.randint(11, 99), rng.randint(3, 12), rng.randint(3, 12)
    return _probe("precedence", f"What is {a} + {b} * {c}?", a + b * c, (a, b, c), (b * c,))


def percentage(rng: Random) -> Probe:
    """A whole number of a multiple of twenty."""
    share, whole = rng.choice((5, 15, 25, 35, 45, 55, 60, 75, 80)), 20 * rng.randint(3, 40)
    right = share * whole // 100
    if right == share:
        return percentage(rng)
    return _probe("percentage", f"What is {share} percent of {whole}?", right, (share, whole))


def in_words(rng: Random) -> Probe:
    """A product and a difference, told as a story."""
    name, thing = rng.choice(("Mina", "Otis", "Petra", "Ravi")), rng.choice(("pens", "apples", "tickets", "shells"))
    boxes, each = rng.randint(6, 19), rng.randint(4, 24)
    gone = rng.randint(3, boxes * each // 2)
    right = boxes * each - gone
    if right in (boxes, each, gone):
        return in_words(rng)
    question = (
        f"{name} has {boxes} boxes with {each} {thing} in each box, and gives away {gone} of the {thing}. "
        f"How many {thing} does {name} have left?"
    )
    return _probe("word problem", question, right, (boxes, each, gone), (boxes * each,))


FAMILY = Family(
    name="arithmetic",
    limitation="Mathematical operations",
    rule="the last number that the question does not state is the right one, and no number but a step to it is given",
    blind="whole numbers and the four operations only; a right working with another way of writing it may fail",
    max_new_tokens=24,
    makers=(addition, subtraction, multiplication, division, precedence, percentage, in_words),
)
