"""What can be seen of an answer without understanding it: its length, whether it repeats itself, echoes or leaks."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from roslin import prompt
from roslin.records.record import Record

GRAM = 4
"""Length of the runs of words whose repetition is counted, as in the source of `repetition`."""
LOOP_TURNS = 3
LOOP_WORDS = 8
"""A loop is a block of words said at least LOOP_TURNS times in a row, LOOP_WORDS words or more in all."""
ECHO_WORDS = 3
"""Fewer words in common with the question may be the answer itself ("red", "New York")."""

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Traits:
    """What can be counted in one answer; see `traits`."""

    tokens: int
    """Length of the text in the model's tokens; the end key is no part of it."""
    empty: bool
    repetition: float
    """Share of the 4-grams of words that were there before; 0 for fewer than four words."""
    loops: bool
    echoed: bool
    keys: bool
    """Whether a key of the prompt stands in the text, such as `### Instruction:`."""

    @property
    def faults(self) -> list[str]:
        """What is wrong with the answer, a word or two each."""
        named = {
            "empty": self.empty,
            "repeats itself in a loop": self.loops,
            "echoes the question": self.echoed,
            "holds a key of the prompt": self.keys,
        }
        return [name for name, found in named.items() if found]


def traits(record: Record, text: str, tokens: int) -> Traits:
    """The traits of an answer to `record`, or of its response, that is `tokens` tokens long."""
    said = plain_words(text)
    return Traits(
        tokens=tokens,
        empty=not text.strip(),
        repetition=repetition(said),
        loops=loops(said),
        echoed=echoes(record, said),
        keys=any(key in text for key in prompt.FORBIDDEN_IN_RECORDS),
    )


def plain_words(text: str) -> list[str]:
    """Words of any script, without case and punctuation."""
    return _WORD.findall(text.casefold())


def repetition(said: Sequence[str]) -> float:
    """Share of 4-grams that repeat an earlier one: 1 - distinct / all.

    seq-rep-4 of Welleck et al., Neural Text Generation with Unlikelihood Training (2020), over words rather than
    tokens, so that models with different tokenizers compare.
    """
    grams = [tuple(said[place : place + GRAM]) for place in range(len(said) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def loops(said: Sequence[str]) -> bool:
    """Whether some block of words is said LOOP_TURNS times or more in a row, over at least LOOP_WORDS words."""
    return any(_longest_run(said, period) >= LOOP_WORDS for period in range(1, len(said) // LOOP_TURNS + 1))


def _longest_run(said: Sequence[str], period: int) -> int:
    """Words in the longest run that repeats a block of `period` words at least LOOP_TURNS times; 0 without one."""
    longest = same = 0
    for place in range(period, len(said)):
        same = same + 1 if said[place] == said[place - period] else 0
        longest = max(longest, same)
    return longest + period if longest >= (LOOP_TURNS - 1) * period else 0


def echoes(record: Record, said: Sequence[str]) -> bool:
    """Whether an answer gives the question back instead of answering.

    It does when it begins with the whole instruction or the whole context, when it is one run of words of the
    instruction and at least half of it, or when it holds the prompt's opening sentences; ECHO_WORDS words at least.
    A part of the context is no echo: questions about a text are answered with one. Of Dolly's own 15,011 responses,
    1.1 % are echoes by this, nearly all of them a whole context.
    """
    instruction, context = plain_words(record.instruction), plain_words(record.context)
    if len(said) < ECHO_WORDS:
        return False
    begins = any(len(asked) >= ECHO_WORDS and said[: len(asked)] == asked for asked in (instruction, context))
    is_part = 2 * len(said) >= len(instruction) and _holds(instruction, said)
    return begins or is_part or _holds(said, plain_words(prompt.INTRO))


def _holds(whole: Sequence[str], part: Sequence[str]) -> bool:
    return f" {' '.join(part)} " in f" {' '.join(whole)} "
