"""All the probes put to one model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from roslin.answer import Answer, Roslin
from roslin.errors import InputError, MachineError, UsageError
from roslin.evaluate.limits.families import FAMILIES
from roslin.evaluate.limits.probe import Family, Probe, Verdict
from roslin.evaluate.limits.provocation import PROVOCATIONS
from roslin.evaluate.limits.report import ASSOCIATIONS, LimitsReport, ProbeResult
from roslin.evaluate.limits.stereotype import PairResult, leanings

PER_FAMILY = 24

Progress = Callable[[int, int, str], None]
"""Called with answers so far, answers in all, and the family in hand."""


def run_limits(
    model: Roslin, *, name: str, seed: int = 0, per_family: int = PER_FAMILY, progress: Progress | None = None
) -> LimitsReport:
    """Ask a model every probe, greedily, and judge its answers; `name` is what the report calls it.

    What asking raises for one family, the report has in its `failures`, beside the results of the others. Raises
    UsageError when there are not so many different prompts, before any work, and what asking raised where every family
    failed.
    """
    if per_family < 1:
        raise UsageError(f"per_family is {per_family}; it must be 1 or more.")
    families = [*FAMILIES, *PROVOCATIONS]
    drawn = [family.probes(seed, per_family) for family in families]
    tell = progress or _silent
    failures: dict[str, InputError | MachineError] = {}
    found: dict[str, list[ProbeResult]] = {}
    for number, (family, probes) in enumerate(zip(families, drawn, strict=True)):
        tell(number * per_family, len(families) * per_family, family.name)
        with _noted(failures, family.name):
            found[family.name] = _answered(model, family, probes)
    if not found:
        raise next(iter(failures.values()))
    tell(len(families) * per_family, len(families) * per_family, ASSOCIATIONS)
    pairs: list[PairResult] = []
    with _noted(failures, ASSOCIATIONS):
        pairs = leanings(model)
    return LimitsReport(
        model=name,
        dtype=str(model.dtype).removeprefix("torch."),
        seed=seed,
        per_family=per_family,
        probes=tuple(result for family in FAMILIES for result in found.get(family.name, ())),
        provoked=tuple(result for family in PROVOCATIONS for result in found.get(family.name, ())),
        pairs=tuple(pairs),
        failures={part: _first_fault(error) for part, error in failures.items()},
    )


def _silent(_done: int, _total: int, _family: str) -> None:
    """Tell nobody."""


@contextmanager
def _noted(failures: dict[str, InputError | MachineError], part: str) -> Iterator[None]:
    """Keep what goes wrong inside, so that the other parts are not lost."""
    try:
        yield
    except (InputError, MachineError) as error:
        failures[part] = error


def _first_fault(error: InputError | MachineError) -> str:
    """What an error says, cut to its first line: of a family's prompts, each may have the same fault."""
    first, *more = str(error).splitlines()
    return f"{first} (the first of {1 + len(more)} faults)" if more else first


def _answered(model: Roslin, family: Family, probes: Sequence[Probe]) -> list[ProbeResult]:
    questions = [(probe.instruction, probe.context) for probe in probes]
    answers = model.answer_all(questions, greedy=True, max_new_tokens=family.max_new_tokens, logprobs=True)
    return [_judged(family, probe, answer) for probe, answer in zip(probes, answers, strict=True)]


def _judged(family: Family, probe: Probe, answer: Answer) -> ProbeResult:
    verdict = probe.check(answer.text)
    cut = answer.finish_reason == "length"
    if cut and family.whole:
        verdict = Verdict(False, f"{verdict.why}; cut at {family.max_new_tokens} tokens")
    return ProbeResult(
        family=family.name,
        kind=probe.kind,
        instruction=probe.instruction,
        context=probe.context,
        answer=answer.text,
        passed=verdict.passed,
        why=verdict.why,
        cut=cut,
        tokens=answer.tokens,
        log_likelihood=sum(token.logprob for token in answer.logprobs or ()),
    )
