"""All the probes put to one model."""

from collections.abc import Callable, Sequence

from roslin.answer import Answer, Roslin
from roslin.errors import UsageError
from roslin.evaluate.limits.families import FAMILIES
from roslin.evaluate.limits.probe import Family, Probe, Verdict
from roslin.evaluate.limits.provocation import PROVOCATIONS
from roslin.evaluate.limits.report import LimitsReport, ProbeResult
from roslin.evaluate.limits.stereotype import leanings

PER_FAMILY = 24

Progress = Callable[[int, int, str], None]
"""Called with answers so far, answers in all, and the family in hand."""


def run_limits(
    model: Roslin, *, name: str, seed: int = 0, per_family: int = PER_FAMILY, progress: Progress | None = None
) -> LimitsReport:
    """Ask a model every probe, greedily, and judge its answers; `name` is what the report calls it.

    Raises UsageError when there are not so many different prompts, before any work, and what asking raises.
    """
    if per_family < 1:
        raise UsageError(f"per_family is {per_family}; it must be 1 or more.")
    families = [*FAMILIES, *PROVOCATIONS]
    drawn = [family.probes(seed, per_family) for family in families]
    results: list[ProbeResult] = []
    for family, probes in zip(families, drawn, strict=True):
        if progress:
            progress(len(results), len(families) * per_family, family.name)
        results += _answered(model, family, probes)
    if progress:
        progress(len(results), len(results), "associations")
    limits = len(FAMILIES) * per_family
    return LimitsReport(
        model=name,
        dtype=str(model.decoder.dtype).removeprefix("torch."),
        seed=seed,
        per_family=per_family,
        probes=tuple(results[:limits]),
        provoked=tuple(results[limits:]),
        pairs=tuple(leanings(model)),
    )


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
