"""The card's section on limits: what the probes found, in tables, with answers that nobody selected."""

import unicodedata
from collections.abc import Sequence

from roslin.evaluate.limits import (
    FAMILIES,
    PROVOCATIONS,
    LimitsReport,
    PrecisionReport,
    ProbeResult,
    kinds,
    share_passed,
    share_stereotyped,
)
from roslin.publish.markdown import code, fenced, plain
from roslin.statistics import Interval

SECTION = "limits"
"""The name of the section in a card."""
EXAMPLES = 3
LONGEST_ANSWER = 500
"""Characters of an answer that the card shows."""


def limits_markdown(report: LimitsReport, precision: PrecisionReport | None = None) -> str:
    """The section as Markdown; nothing that a model answered can become more of it than text in a block of code."""
    parts = [
        _opening(report),
        *([_failed(report)] if report.failures else []),
        _families(report),
        _blind(),
        _objectionable(report),
        *([_precision(precision)] if precision else []),
        _examples(report),
        _reproduce(report),
    ]
    return "\n\n".join(parts) + "\n"


def _opening(report: LimitsReport) -> str:
    return f"""## Probes of known limitations

Each limitation that Dolly's card names, probed with {report.per_family} prompts that a program made (seed
{report.seed}, greedy answers, {code(report.dtype)}) and a rule by which a program judged the answers. Shares come with
95 % Wilson intervals. The rules are strict about form, so a share says how often an answer kept the rule, no more."""


def _failed(report: LimitsReport) -> str:
    reasons = {part: _printable(" ".join(reason.split())) for part, reason in report.failures.items()}
    lines = [f"- {part}: {plain(reason)}" for part, reason in reasons.items()]
    return "\n".join(["What could not be probed:", "", *lines])


def _families(report: LimitsReport) -> str:
    rows = [f"| {family.limitation} | {_share(report.of(family.name))} | {family.rule} |" for family in FAMILIES]
    by_kind = kinds(report.of("hallucination"))
    parts = "; ".join(f"{kind}: {_share(report.of('hallucination', kind))}" for kind in by_kind)
    table = "\n".join(["| limitation | passed | rule |", "|---|---|---|", *rows])
    return f"{table}\n\nHallucination by kind of prompt: {parts}." if parts else table


def _share(results: Sequence[ProbeResult]) -> str:
    if not results:
        return "not probed"
    passed = sum(result.passed for result in results)
    return f"{passed} of {len(results)} ({_range(share_passed(results))})"


def _range(share: Interval) -> str:
    return f"{_percent(share.low)} … {_percent(share.high)}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _blind() -> str:
    lines = [f"- {family.limitation}: {family.blind}." for family in FAMILIES]
    return "\n".join(["What these rules do not see:", "", *lines])


def _objectionable(report: LimitsReport) -> str:
    rows = [f"| {family.limitation} | {_share(report.of(family.name))} |" for family in PROVOCATIONS]
    table = "\n".join(["| prompts about groups of people | answers without a word of insult |", "|---|---|", *rows])
    return f"""### Objectionable content

{table}

{_associations(report)}This is a small probe: a short list of words and a few dozen sentences. It finds some
objectionable content and rules out none."""


def _associations(report: LimitsReport) -> str:
    if not report.pairs:
        return ""
    leaning = share_stereotyped(report.pairs)
    dimensions = ", ".join(dict.fromkeys(pair.dimension for pair in report.pairs))
    return f"""Of {len(report.pairs)} pairs of sentences that differ only in a group ({dimensions}), the model finds the
stereotype likelier in {_percent(leaning.estimate)} ({_range(leaning)}; half is no preference).

"""


def _precision(precision: PrecisionReport) -> str:
    share = precision.share_identical
    identical = f"{_percent(share.estimate)} ({_range(share)})"
    return f"""### {precision.other} against {precision.reference}

The same prompts in both: {identical} of the {precision.answers} greedy answers are the same, token for token.
{precision.lost} probes pass in {code(precision.reference)} only and {precision.won} in {code(precision.other)} only
(McNemar's exact test, mid-p: p = {precision.p_value:.2g}). Under {code(precision.other)} the log-likelihood of the
{code(precision.reference)} answers moves by {precision.drift:.4f} nats a token on average,
{precision.greatest_drift:.4f} at most."""


def _examples(report: LimitsReport) -> str:
    shown = "\n\n".join(_example(result) for result in report.examples(EXAMPLES))
    return f"### Examples\n\nPicked by the seed, not by anybody.\n\n{shown}"


def _example(result: ProbeResult) -> str:
    verdict = "passed" if result.passed else "failed"
    given = [f"Prompt: {_block(result.instruction)}"]
    given += [f"Context: {_block(result.context)}"] if result.context else []
    text = "\n".join([*given, f"Answer: {_block(result.answer)}"])
    return f"{plain(result.family)}, {verdict}: {plain(_printable(result.why))}\n\n{fenced(text, 'text')}"


def _block(text: str) -> str:
    """Lines of which all but the first are moved in, so that none begins where a mark of the card would."""
    shown = text if len(text) <= LONGEST_ANSWER else f"{text[:LONGEST_ANSWER]} …"
    return "\n  ".join(_printable(line) for line in shown.splitlines()) or "(nothing)"


def _printable(text: str) -> str:
    """The text with every control or formatting character, and half a surrogate pair, as U+FFFD."""
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in text)


def _reproduce(report: LimitsReport) -> str:
    command = f"roslin eval MODEL --limits --seed {report.seed} --per-family {report.per_family}"
    return f"Reproduce with:\n\n{fenced(command, '')}"
