"""A probe: a prompt that a program made, and the rule by which a program judges the answer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from roslin.errors import UsageError

TRIES = 2000
"""Draws in a row that may repeat a prompt before a family counts as used up."""


@dataclass(frozen=True)
class Verdict:
    """Whether an answer keeps the rule, and what decided that."""

    passed: bool
    why: str


Check = Callable[[str], Verdict]


def judged(faults: Sequence[str], otherwise: str) -> Verdict:
    """Failed with all the faults that were found, or passed because of `otherwise`."""
    return Verdict(not faults, "; ".join(faults) or otherwise)


@dataclass(frozen=True)
class Probe:
    """One prompt of a family; `kind` names the template that it was made from."""

    kind: str
    instruction: str
    check: Check
    context: str | None = None


@dataclass(frozen=True)
class Family:
    """The probes of one limitation. A maker draws one probe of a kind; kinds take turns."""

    name: str
    limitation: str
    """The limitation in words, as a heading has it."""
    rule: str
    """What an answer must do to pass."""
    blind: str
    """What the rule does not see."""
    max_new_tokens: int
    makers: Sequence[Callable[[Random], Probe]]
    whole: bool = False
    """Whether the rule is on the whole answer, so that one which was cut at its limit of tokens fails."""

    def probes(self, seed: int, count: int) -> list[Probe]:
        """The first `count` probes of a seed, no two with the same prompt; more only add to them.

        Raises UsageError when the templates do not give as many.
        """
        found: dict[tuple[str, str | None], Probe] = {}
        draws = self._draws(Random(f"{seed}:{self.name}"))
        repeated = 0
        while len(found) < count:
            probe = next(draws)
            key = probe.instruction, probe.context
            repeated = repeated + 1 if key in found else 0
            found.setdefault(key, probe)
            if repeated == TRIES:
                raise UsageError(
                    f"{count} probes a family were asked for; {self.name} has about {len(found)} different ones. "
                    "Ask for fewer."
                )
        return list(found.values())

    def _draws(self, rng: Random) -> Iterator[Probe]:
        while True:
            for make in self.makers:
                yield make(rng)
