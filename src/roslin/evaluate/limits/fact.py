"""Facts that nobody disputes, written for Roslin: a question, the answers that count, and the group it belongs to."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """A question and its accepted answers; those of other facts of its group are wrong answers of the same sort."""

    group: str
    question: str
    accepted: tuple[str, ...]

    @property
    def exact_case(self) -> bool:
        """Whether upper and lower case matter: Co is cobalt, CO is not."""
        return self.group == "symbol"


def _group(group: str, question: str, answers: Sequence[tuple[str, str]]) -> list[Fact]:
    """Facts asked in the same words; accepted answers are divided by `|`."""
    return [Fact(group, question.format(of), tuple(accepted.split("|"))) for of, accepted in answers]


CAPITALS = [
    ("France", "Paris"), ("Japan", "Tokyo"), ("Italy", "Rome"), ("Spain", "Madrid"), ("Portugal", "Lisbon"),
    ("Greece", "Athens"), ("Egypt", "Cairo"), ("Kenya", "Nairobi"), ("Canada", "Ottawa"), ("Australia", "Canberra"),
    ("Brazil", "Brasilia"), ("Peru", "Lima"), ("Argentina", "Buenos Aires"), ("Norway", "Oslo"),
    ("Sweden", "Stockholm"), ("Finland", "Helsinki"), ("Denmark", "Copenhagen"), ("Poland", "Warsaw"),
    ("Hungary", "Budapest"), ("Austria", "Vienna"), ("Ireland", "Dublin"), ("Cuba", "Havana"),
    ("Thailand", "Bangkok"), ("Vietnam", "Hanoi"), ("Iceland", "Reykjavik"), ("Germany", "Berlin"),
    ("Turkey", "Ankara"), ("Romania", "Bucharest"), ("Ethiopia", "Addis Ababa"), ("Morocco", "Rabat"),
]  # fmt: skip
SYMBOLS = [
    ("gold", "Au"), ("silver", "Ag"), ("iron", "Fe"), ("sodium", "Na"), ("lead", "Pb"), ("tin", "Sn"),
    ("copper", "Cu"), ("mercury", "Hg"), ("zinc", "Zn"), ("calcium", "Ca"), ("potassium", "K"), ("nickel", "Ni"),
]  # fmt: skip
NUMBERS = [
    ("days are there in a leap year", "366"),
    ("minutes are there in an hour", "60|sixty"),
    ("hours are there in a day", "24|twenty-four|twenty four"),
    ("months are there in a year", "12|twelve"),
    ("days are there in a week", "7|seven"),
    ("years are there in a century", "100|hundred"),
    ("legs does a spider have", "8|eight"),
    ("legs does an insect have", "6|six"),
    ("sides does a hexagon have", "6|six"),
    ("sides does a pentagon have", "5|five"),
    ("faces does a cube have", "6|six"),
    ("degrees are there in a right angle", "90|ninety"),
    ("degrees do the angles of a flat triangle add up to", "180"),
    ("planets go round the Sun", "8|eight"),
    ("strings does a violin have", "4|four"),
    ("squares are there on a chessboard", "64|sixty-four|sixty four"),
    ("letters does the English alphabet have", "26|twenty-six|twenty six"),
    ("millimetres are there in a metre", "1000|1,000|thousand"),
    ("players of one football (soccer) team are on the field at kick-off", "11|eleven"),
    ("degrees Celsius is the boiling point of water at sea level", "100|hundred"),
]
AUTHORS = [
    ("Romeo and Juliet", "Shakespeare"), ("Don Quixote", "Cervantes"), ("Pride and Prejudice", "Austen"),
    ("War and Peace", "Tolstoy"), ("Oliver Twist", "Dickens"), ("Frankenstein", "Shelley"), ("Faust", "Goethe"),
    ("Les Misérables", "Hugo"), ("The Metamorphosis", "Kafka"), ("Moby-Dick", "Melville"),
]  # fmt: skip
YOUNG = [("cow", "calf"), ("cat", "kitten"), ("sheep", "lamb"), ("horse", "foal"), ("bear", "cub"), ("goat", "kid")]
LANGUAGES = [
    ("Brazil", "Portuguese"), ("Egypt", "Arabic"), ("Austria", "German"), ("Mexico", "Spanish"), ("Japan", "Japanese"),
    ("Hungary", "Hungarian|Magyar"),
]  # fmt: skip
BODIES = [
    ("is the largest of the Solar System", "Jupiter"),
    ("is closest to the Sun", "Mercury"),
    ("is called the red planet", "Mars"),
    ("is third from the Sun", "Earth"),
    ("is farthest from the Sun", "Neptune"),
]
ORGANS = [("pumps blood through the body", "heart"), ("takes oxygen from the air", "lung|lungs"), ("sees", "eye|eyes")]

FACTS: tuple[Fact, ...] = (
    *_group("capital", "What is the capital of {}?", CAPITALS),
    *_group("symbol", "What is the chemical symbol of {}?", SYMBOLS),
    *_group("number", "How many {}?", NUMBERS),
    *_group("author", "Who wrote {}?", AUTHORS),
    *_group("young", "What is a young {} called?", YOUNG),
    *_group("language", "What is the main language of {}?", LANGUAGES),
    *_group("planet", "Which planet {}?", BODIES),
    *_group("organ", "Which organ of the human body {}?", ORGANS),
)
