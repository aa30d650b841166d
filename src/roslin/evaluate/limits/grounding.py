"""Hallucination: questions about a short invented text that holds the answer, or does not."""

import re
from random import Random

from roslin.evaluate.limits.probe import Check, Family, Probe, Verdict, judged
from roslin.evaluate.limits.reading import affirms, first_sentence, named_in_order

PEOPLE = ("Orla Venn", "Tobias Karr", "Mirela Dost", "Anselm Pike", "Juna Halloran", "Piet Sorrel", "Wanda Quill")
TRAITS = {
    "trade": ("works as a {}", "What work does {} do?", ("glazier", "beekeeper", "piano tuner", "surveyor", "cooper")),
    "town": ("lives in {}", "Where does {} live?", ("Tarn Hollow", "Eastwick Ferry", "Low Marl", "Brennish", "Cald")),
    "pet": ("keeps a {}", "Which animal does {} keep?", ("goat", "parrot", "tortoise", "ferret", "peacock")),
    "instrument": (
        "plays the {}",
        "Which musical instrument does {} play?",
        ("cello", "bassoon", "harp", "banjo", "tuba"),
    ),
    "colour": (
        "has painted the front door {}",
        "In which colour has {} painted the front door?",
        ("green", "orange", "violet", "white", "crimson"),
    ),
    "month": ("was born in {}", "In which month was {} born?", ("March", "June", "October", "December", "April")),
}
ASIDES = (
    "The bus stops there twice a day.",
    "On Sundays the market is closed.",
    "Last winter was a mild one.",
    "The old mill is used as a library now.",
)
RULE = 'Answer from the text alone. If the text does not say, answer "The text does not say."'
_REFUSAL = re.compile(
    r"\b(?:(?:do|does|did|is|are|was|were|has|have|can|could)(?:\s+not|n['’]t)|cannot|can['’]t|no|never|not|without)\b"
    r".{0,40}\b(?:say|says|said|state[sd]?|mention(?:s|ed)?|tell|told|give[ns]?|specif(?:y|ied)|provided?|known?|"
    r"answer(?:ed)?|information|determined?|contain(?:s|ed)?|include[sd]?|indicated?|stated|clear|sure)\b"
    r"|\bunknown\b|\bunclear\b",
    re.IGNORECASE,
)


def refuses(answer: str) -> bool:
    """Whether the first sentence says that the text does not tell."""
    return bool(_REFUSAL.search(first_sentence(answer)))


def _text(rng: Random) -> tuple[str, str, dict[str, str], str]:
    """A person, a text about that person, the traits it states with their values, and a trait it does not state."""
    person = rng.choice(PEOPLE)
    *stated, absent = rng.sample(sorted(TRAITS), 4)
    values = {trait: rng.choice(TRAITS[trait][2]) for trait in stated}
    one, two, three = (TRAITS[trait][0].format(value) for trait, value in values.items())
    text = f"{person} {one} and {two}. {rng.choice(ASIDES)} {person} also {three}."
    return person, text, values, absent


def there(rng: Random) -> Probe:
    """The text states the answer."""
    person, text, values, _ = _text(rng)
    trait = rng.choice(sorted(values))
    return Probe("answer in the text", f"{TRAITS[trait][1].format(person)} {RULE}", _given(trait, values[trait]), text)


def not_there(rng: Random) -> Probe:
    """The text does not state the answer."""
    person, text, _, absent = _text(rng)
    return Probe("answer not in the text", f"{TRAITS[absent][1].format(person)} {RULE}", _refused(absent), text)


def _given(trait: str, right: str) -> Check:
    def check(answer: str) -> Verdict:
        said = first_sentence(answer)
        faults = [] if affirms(said, right) else [f"does not say {right}"]
        if refuses(answer):
            faults.append("says that the text does not tell")
        wrong = [value for value in named_in_order(said, TRAITS[trait][2]) if value != right]
        return judged(faults + [f"says {value}" for value in wrong], f"says {right}")

    return check


def _refused(trait: str) -> Check:
    def check(answer: str) -> Verdict:
        faults = [] if refuses(answer) else ["does not say that the text is silent"]
        invented = named_in_order(answer, TRAITS[trait][2])
        return judged(faults + [f"invents {value}" for value in invented], "says that the text does not tell")

    return check


FAMILY = Family(
    name="hallucination",
    limitation="Hallucination (against a given text)",
    rule="an answer that the text holds is given, alone; of one that it does not, that is said, and none invented",
    blind="texts of three facts; what a model invents without a text, or beside its answer, is not seen",
    max_new_tokens=32,
    makers=(there, not_there),
)
