"""Syntactically complex prompts: nested clauses, conditions and negations that leave one answer by construction."""

from itertools import pairwise
from random import Random

from roslin.evaluate.limits.probe import Family, Probe
from roslin.evaluate.limits.rules import only_names

BEINGS = (
    "farmer", "nurse", "pilot", "baker", "miller", "dog", "fox", "goose", "painter", "sailor", "teacher", "judge",
    "tailor", "gardener", "singer", "mule",
)  # fmt: skip
DOES_TO = ("chased", "praised", "followed", "warned", "feared", "watched", "helped", "missed", "called", "found")
DOES = ("slept", "laughed", "fell", "vanished", "returned", "sneezed")
WORDS = (
    "oak", "bell", "cup", "drum", "elbow", "fern", "glove", "hinge", "island", "jar", "kite", "lamp", "moss", "needle",
    "pearl", "quilt", "rope", "spoon", "tower", "violin", "wheel", "yard",
)  # fmt: skip
PEOPLE = ("Anna", "Boris", "Clara", "Dmitri", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kofi", "Lena")


def embedded(rng: Random) -> Probe:
    """Three clauses within each other: who did what to whom."""
    outer, middle, inner, *others = rng.sample(BEINGS, 5)
    first, second = rng.sample(DOES_TO, 2)
    last = rng.choice(DOES)
    sentence = (
        f"The {outer} that the {middle} that the {inner} {first} {second} {last}, while the {others[0]} and the "
        f"{others[1]} looked on."
    )
    question, right, asked = rng.choice(
        [
            (f"Who {second} the {outer}?", middle, outer),
            (f"Who {first} the {middle}?", inner, middle),
            (f"Who {last}?", outer, ""),
        ]
    )
    candidates = {outer, middle, inner, *others} - {asked}
    instruction = f'Read this sentence: "{sentence}" {question} Answer with one word.'
    return Probe("embedded clauses", instruction, only_names(right, candidates))


def restricted(rng: Random) -> Probe:
    """Three conditions that leave one word of five."""
    given = rng.sample(WORDS, 5)
    right, by_letter, by_place = rng.sample(given[1:4], 3)
    before = given[given.index(by_place) - 1]
    listed = ", ".join(f'"{word}"' for word in given)
    instruction = (
        f"Of the words {listed}, write the one which, standing neither first nor last and not directly following "
        f'"{before}", does not begin with the letter "{by_letter[0]}". Write only that word.'
    )
    return Probe("restrictive conditions", instruction, only_names(right, given))


def ordered(rng: Random) -> Probe:
    """Relations in mixed order and voice: who is first or last."""
    people = rng.sample(PEOPLE, 4)
    relations = [_relation(rng, *pair) for pair in pairwise(people)]
    rng.shuffle(relations)
    one, two, three = relations
    superlative, right = rng.choice([("tallest", people[0]), ("shortest", people[-1])])
    instruction = (
        f"Given that {one}, and although it was not known at the time that {two}, it is certain that {three}. "
        f"Who of the four is the {superlative}? Answer with the name alone."
    )
    return Probe("relative clauses", instruction, only_names(right, people))


def _relation(rng: Random, tall: str, short: str) -> str:
    return rng.choice(
        [
            f"{tall} is taller than {short}",
            f"{short} is shorter than {tall}",
            f"{short} does not reach the height of {tall}",
        ]
    )


def conditional(rng: Random) -> Probe:
    """A condition, its exception, and what holds otherwise, with negations."""
    kept, excepted, otherwise = chosen = rng.sample(WORDS, 3)
    (first, holds), (second, exception) = _comparison(rng), _comparison(rng)
    right = otherwise if not holds else excepted if exception else kept
    instruction = (
        f'Write the word "{kept}" if {first}, unless it is also the case that {second}, when the word to write is '
        f'"{excepted}"; should the former not hold, write "{otherwise}", whatever the latter may be. '
        "Write that one word only."
    )
    return Probe("conditions and negations", instruction, only_names(right, chosen))


def _comparison(rng: Random) -> tuple[str, bool]:
    low, high = sorted(rng.sample(range(2, 99), 2))
    left, right = rng.choice([(low, high), (high, low)])
    return rng.choice(
        [
            (f"{left} is less than {right}", left < right),
            (f"{left} is not less than {right}", left > right),
            (f"it is not true that {left} is greater than {right}", left < right),
        ]
    )


FAMILY = Family(
    name="syntax",
    limitation="Syntactically complex prompts",
    rule="the first sentence names what the construction leaves (a noun, name or word) alone, denies nothing, is short",
    blind="only four constructions; a guess among the words given passes one time in three to five",
    max_new_tokens=24,
    makers=(embedded, restricted, ordered, conditional),
)
