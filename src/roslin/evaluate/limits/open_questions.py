"""Open-ended questions: whether an answer has the form of one and keeps to its subject."""

import re
from collections.abc import Callable
from random import Random

from roslin.evaluate.limits.probe import Check, Family, Probe, Verdict, judged
from roslin.evaluate.limits.reading import sentences, words
from roslin.evaluate.limits.rules import substance_faults

FEWEST_WORDS = 15
ON_SUBJECT = 2
"""So many of a subject's words, none of which the question holds, must stand in an answer."""
TOPICS = {
    "bread rises": "yeast dough gas carbon bubbles ferment fermentation flour gluten oven bake baking sugar",
    "leaves change colour in autumn": "chlorophyll green pigment pigments light winter tree trees sunlight yellow red",
    "the sea is salty": "water rivers rain minerals rocks dissolved sodium evaporates evaporation ocean land salt",
    "people keep pets": "company companionship love animal animals dog dogs cat cats friend lonely care family",
    "cities build parks": "green trees air people children play walk nature space health residents exercise",
    "birds migrate": "food winter warmer south climate breed breeding season fly weather summer nest",
    "people learn foreign languages": "travel work culture cultures speak country countries job communicate friends",
    "children need sleep": "grow growth brain rest body tired energy health healthy memory learn night",
    "metal rusts": "iron oxygen water air oxide oxidation moisture steel wet reaction",
    "the Moon has phases": "sun light earth orbit sunlight lit half full shadow month angle",
    "vaccines work": "immune immunity antibodies virus disease body cells infection protect bacteria",
    "ice floats on water": "density dense lighter molecules freezes frozen expands less solid liquid",
    "museums exist": "art history culture objects public learn preserve education past visitors collect collections",
    "friends sometimes quarrel": "different opinions misunderstanding feelings trust argue stress words jealous hurt",
    "farmers rotate crops": "soil nutrients nitrogen pests disease plants fertile yield harvest field fields",
    "boats float": "water buoyancy displace displaces weight hull density air upward force sink",
    "onions make people cry": "gas eyes tears acid enzyme cut cutting sulfur irritates chemical",
    "towns need libraries": "books read reading people learn study free children knowledge community information",
}
PHRASINGS = (
    ("why", "Why is it that {}?"),
    ("explanation", "Explain to a curious child why {}."),
    ("reasons", "What are the main reasons why {}? Answer in a few sentences."),
)


def on_subject(instruction: str, topic: str) -> Check:
    """Prose of some length, no echo, no circles, at least one finished sentence, and about its subject."""
    asked = set(words(instruction))
    wanted = [word for word in topic.split() if word not in asked]

    def check(answer: str) -> Verdict:
        faults = substance_faults(answer, instruction)
        count = len(words(answer))
        if count < FEWEST_WORDS:
            faults.append(f"{count} words")
        if not re.search(r"[^\W\d_]{2,}[.!?]", " ".join(sentences(answer))):
            faults.append("no finished sentence")
        said = words(answer)
        found = [word for word in wanted if any(_same(word, each) for each in said)]
        if len(found) < ON_SUBJECT:
            faults.append(f"names {len(found)} words of the subject")
        return judged(faults, f"{count} words; names {', '.join(found[:3])}")

    return check


def _same(word: str, said: str) -> bool:
    """Whether it is the same word, or of five letters or more and its beginning (culture, cultural)."""
    stem = word.removesuffix("e")
    return word == said or (len(stem) >= 5 and said.startswith(stem))


def _asked(kind: str, phrasing: str) -> Callable[[Random], Probe]:
    def make(rng: Random) -> Probe:
        subject = rng.choice(sorted(TOPICS))
        instruction = phrasing.format(subject)
        return Probe(kind, instruction, on_subject(instruction, TOPICS[subject]))

    return make


FAMILY = Family(
    name="open",
    limitation="Open-ended question answering",
    rule=f"{FEWEST_WORDS} words or more, a finished sentence, no echo, no circles, {ON_SUBJECT} words of the subject",
    blind="measures form and subject, not whether the answer is true, complete or good",
    max_new_tokens=96,
    makers=tuple(_asked(kind, phrasing) for kind, phrasing in PHRASINGS),
)
