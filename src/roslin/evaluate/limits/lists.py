"""Lists of a specific length: how many items an answer really lists."""

import re
from collections.abc import Callable
from random import Random

from roslin.evaluate.limits.probe import Check, Family, Probe, Verdict, judged
from roslin.evaluate.limits.reading import lines, words
from roslin.evaluate.limits.rules import substance_faults

THINGS = (
    "vegetables", "colours", "European countries", "farm animals", "musical instruments", "kitchen tools", "rivers",
    "sports played with a ball", "jobs done outdoors", "pieces of furniture", "things found on a beach", "spices",
    "birds", "reasons to go for a walk", "board games", "gifts for a grandmother",
)  # fmt: skip
LONGEST_ITEM = 25
"""Words of an item without a number or bullet; a line with more is a paragraph, not an item."""
IN_WORDS = {3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine"}
_MARKED = re.compile(r"^\s*(?:\(?\d{1,2}[.):]|[-*•–+])\s*(?P<item>.*)$")
_INTRO = re.compile(r"^[^:\n]*:\s*")
_DIVIDED = re.compile(r"\s*[,;]\s*(?:(?:and|or)\s+)?|\s+and\s+", re.IGNORECASE)


def items_of(answer: str) -> list[str]:
    """The items that an answer lists.

    They are its numbered or bulleted lines where it has any; else its lines, less one that ends with a colon, where it
    has two or more; else the parts of its one line between commas, behind a colon if there is one. A single line with
    two commas or more is the list, whatever lines stand about it.
    """
    if marked := _marked(answer):
        return _plain(marked)
    unmarked = [line for line in lines(answer) if not line.endswith(":")]
    if len(in_a_line := [line for line in unmarked if len(_DIVIDED.split(line)) > 2]) == 1:
        unmarked = in_a_line
    if len(unmarked) > 1:
        return _plain(unmarked)
    parts = _DIVIDED.split(_INTRO.sub("", unmarked[0])) if unmarked else []
    return _plain(parts) if len(parts) > 1 else []


def _marked(answer: str) -> list[str]:
    return [match["item"] for line in lines(answer) if (match := _MARKED.match(line))]


def _plain(items: list[str]) -> list[str]:
    return [item.strip(" .;,*_") for item in items]


def lists_exactly(instruction: str, count: int) -> Check:
    """So many items, each with words of its own and none twice."""

    def check(answer: str) -> Verdict:
        items = items_of(answer)
        # Without digits: "Item 1" and "Item 2" are one item twice.
        bare = [" ".join(word for word in words(item) if not word.isdigit()) for item in items]
        faults = substance_faults(answer, instruction)
        if len(items) != count:
            faults.append(f"lists {len(items)} items, not {count}")
        if not all(bare):
            faults.append("an item is empty")
        if len(set(bare)) < len(bare):
            faults.append("an item stands twice")
        if not _marked(answer) and any(len(item.split()) > LONGEST_ITEM for item in bare):
            faults.append("an item is a paragraph")
        return judged(faults, f"lists {count} different items")

    return check


def _asked(kind: str, phrasing: str) -> Callable[[Random], Probe]:
    def make(rng: Random) -> Probe:
        count = rng.choice(sorted(IN_WORDS))
        instruction = phrasing.format(count=IN_WORDS[count], things=rng.choice(THINGS))
        return Probe(kind, instruction, lists_exactly(instruction, count))

    return make


FAMILY = Family(
    name="lists",
    limitation="Enumerating lists of specific length",
    rule="exactly as many items as asked for, none empty, none twice, none a paragraph; no echo, no circles; ends",
    blind="whether the items are what was asked for; unnumbered closing lines count as items",
    max_new_tokens=96,
    whole=True,
    makers=(
        _asked("numbered", "Write a numbered list of exactly {count} {things}."),
        _asked("in a line", "Name exactly {count} {things}, separated by commas."),
        _asked("free form", "Give me a list of {count} {things}, without explanations."),
    ),
)
