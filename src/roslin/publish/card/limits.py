"""The card's section on what the model cannot do: what probes found, in tables, with answers that nobody selected."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from roslin.evaluate.limits import FAMILIES, PROVOCATIONS
from roslin.publish.markdown import code, fenced, plain
from roslin.statistics import Interval, wilson_interval

if TYPE_CHECKING:
    from roslin.publish.evidence.limits import Count, Example, LimitsEvidence, Pairs, PrecisionEvidence

SECTION = "limits"
"""The name of the section in a card."""
HEADING = "## Known Limitations\n\n### Performance Limitations"
GENERAL = """- It answers each instruction by itself and remembers no conversation.
- It can state false things fluently. No safety training is recorded.
- It was measured only as this card says. Measure it on your own task before you rely on it."""


def limits_markdown(found: LimitsEvidence) -> str:
    """The section as Markdown; nothing that a model answered can become more of it than text in a block of code."""
    parts = [
        HEADING,
        GENERAL,
        _opening(found),
        *([_failed(found)] if found.failures else []),
        _families(found),
        _blind(),
        _objectionable(found),
        *([_precision(found.precision)] if found.precision else []),
        _examples(found),
        _reproduce(found),
    ]
    return "\n\n".join(parts) + "\n"


def _opening(found: LimitsEvidence) -> str:
    return f"""Each limitation that Dolly's card names, probed with {found.per_family} prompts that a program made (seed
{found.seed}, greedy answers, {code(found.dtype)}) and a rule by which a program judged the answers. Shares come with
95 % Wilson intervals. The rules are strict about form, so a share says how often an answer kept the rule, no more."""


def _failed(found: LimitsEvidence) -> str:
    reasons = {part: _printable(" ".join(reason.split())) for part, reason in found.failures.items()}
    lines = [f"- {part}: {plain(reason)}" for part, reason in reasons.items()]
    return "\n".join(["What could not be probed:", "", *lines])


def _families(found: LimitsEvidence) -> str:
    shares = {family.name: _share(found.families.get(family.name)) for family in FAMILIES}
    rows = [f"| {family.limitation} | {shares[family.name]} | {family.rule} |" for family in FAMILIES]
    parts = "; ".join(f"{kind}: {_share(count)}" for kind, count in found.hallucination.items())
    table = "\n".join(["| limitation | passed | rule |", "|---|---|---|", *rows])
    return f"{table}\n\nHallucination by kind of prompt: {parts}." if parts else table


def _share(count: Count | None) -> str:
    if not count or not count.of:
        return "not probed"
    return f"{count.passed} of {count.of} ({_range(wilson_interval(count.passed, count.of))})"


def _range(share: Interval) -> str:
    return f"{_percent(share.low)} … {_percent(share.high)}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _blind() -> str:
    lines = [f"- {family.limitation}: {family.blind}." for family in FAMILIES]
    return "\n".join(["What these rules do not see:", "", *lines])


def _objectionable(found: LimitsEvidence) -> str:
    rows = [f"| {family.limitation} | {_share(found.families.get(family.name))} |" for family in PROVOCATIONS]
    table = "\n".join(["| prompts about groups of people | answers without a word of insult |", "|---|---|", *rows])
    return f"""#### Objectionable content

{table}

{_associations(found.pairs) if found.pairs else ""}This is a small probe: a short list of words and a few dozen
sentences. It finds some objectionable content and rules out none."""


def _associations(pairs: Pairs) -> str:
    leaning = wilson_interval(pairs.stereotyped, pairs.of)
    return f"""Of {pairs.of} pairs of sentences that differ only in a group ({", ".join(pairs.dimensions)}), the model
finds the stereotype likelier in {_percent(leaning.estimate)} ({_range(leaning)}; half is no preference).

"""


def _precision(found: PrecisionEvidence) -> str:
    report = found.report
    share = report.share_identical
    identical = f"{_percent(share.estimate)} ({_range(share)})"
    return f"""#### {found.other} against {found.reference}

The same prompts in both: {identical} of the {found.answers} greedy answers are the same, token for token.
{found.lost} probes pass in {code(found.reference)} only and {found.won} in {code(found.other)} only
(McNemar's exact test, mid-p: p = {report.p_value:.2g}). Under {code(found.other)} the log-likelihood of the
{code(found.reference)} answers moves by {found.drift:.4f} nats a token on average,
{found.greatest_drift:.4f} at most."""


def _examples(found: LimitsEvidence) -> str:
    shown = "\n\n".join(map(_example, found.examples))
    return f"#### Examples\n\nPicked by the seed, not by anybody.\n\n{shown}"


def _example(result: Example) -> str:
    verdict = "passed" if result.passed else "failed"
    given = [f"Prompt: {block(result.instruction)}"]
    given += [f"Context: {block(result.context)}"] if result.context else []
    text = "\n".join([*given, f"Answer: {block(result.answer)}"])
    return f"{plain(result.family)}, {verdict}: {plain(_printable(result.why))}\n\n{fenced(text, 'text')}"


def block(text: str) -> str:
    """Lines of which all but the first are moved in, so that none begins where a mark of the card would."""
    return "\n  ".join(_printable(line) for line in text.splitlines()) or "(nothing)"


def _printable(text: str) -> str:
    """The text with every control or formatting character, and half a surrogate pair, as U+FFFD."""
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in text)


def _reproduce(found: LimitsEvidence) -> str:
    command = f"roslin eval MODEL --limits --seed {found.seed} --per-family {found.per_family}"
    return f"Reproduce with:\n\n{fenced(command, 'sh')}"
