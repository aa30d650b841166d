"""ROUGE-L: how much of a reference an answer says, in the reference's order."""

import re
from collections.abc import Sequence

_WORD = re.compile(r"[a-z0-9]+")


def rouge_words(text: str) -> list[str]:
    """The words that ROUGE compares: runs of a to z and digits, in lower case. Other scripts have none."""
    return _WORD.findall(text.lower())


def rouge_l(reference: str, answer: str) -> float:
    """F measure (0 to 1) of the longest common subsequence of words, without stemming.

    Lin, ROUGE: A Package for Automatic Evaluation of Summaries (2004), section 3, over the whole text as one sentence,
    with recall and precision weighing the same. 0 when they share no word.
    """
    expected, said = rouge_words(reference), rouge_words(answer)
    common = common_subsequence(expected, said)
    return 2 * common / (len(expected) + len(said)) if common else 0.0


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    A column of the table of lengths is one integer, whose zero bits are the places where the length grows (Hyyrö,
    Bit-Parallel LCS-length Computation Revisited, 2004): a step for each word of `second`, whatever `first` holds.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    whole = (1 << len(first)) - 1
    column = whole
    for word in second:
        matched = column & places.get(word, 0)
        column = ((column + matched) | (column - matched)) & whole
    return len(first) - column.bit_count()
