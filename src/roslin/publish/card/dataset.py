"""The card's section on the data's limits: what the model was made from, and what a check of the records found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roslin.publish.card.gaps import gaps
from roslin.publish.markdown import code, plain
from roslin.publish.pretraining import OF_THE_SMALL_BASE, pretraining_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from roslin.publish.card.facts import CardFacts
    from roslin.publish.evidence import CheckEvidence, TuningEvidence

PRIVATE = {
    "e-mail": "an e-mail address",
    "telephone": "what looks like a telephone number",
    "card": "what looks like a payment card number",
    "secret": "what looks like an access key",
    "slur": "a slur",
}
"""What `roslin records check --privacy` looks for."""
MOST_CATEGORIES = 20
"""Categories that a card names one by one."""
SOUGHT = {"duplicate": "exact duplicates", "near-duplicate": "near-duplicates", "leak": "held-out questions among them"}


def dataset(facts: CardFacts) -> str:
    """The section."""
    parts = [
        "### Dataset Limitations",
        "Like all language models, it reflects the content and limits of the texts that it was trained on.",
    ]
    tuning = facts.evidence.tuning
    if tuning is None:
        return "\n\n".join([*parts, str(gaps(facts)["dataset"])])
    lines = [f"- {_pretraining(tuning, facts)}", *(f"- {line}" for line in _records(tuning))]
    if tuning.records.check:
        lines += [f"- {line}" for line in _found(tuning.records.check)]
    else:
        lines.append(f"- {gaps(facts)['check']}")
    return "\n\n".join([*parts, "\n".join(lines)])


def in_categories(counts: Mapping[str, int]) -> str:
    """How many records each category has; of very many, the largest."""
    shown = sorted(counts, key=lambda name: (-counts[name], name))[:MOST_CATEGORIES]
    words = [f"{counts[name]:,} {plain(name)}" for name in sorted(shown)]
    others = len(counts) - len(shown)
    rest = sum(counts.values()) - sum(counts[name] for name in shown)
    return ", ".join([*words, *([f"{rest:,} of {others:,} smaller categories"] if others else [])])


def _pretraining(tuning: TuningEvidence, facts: CardFacts) -> str:
    if tuning.base.hub_name is None and "OpenStax" in facts.files.notice:
        return OF_THE_SMALL_BASE
    known = pretraining_of(tuning.base.hub_name)
    return known or f"*Not recorded: which text {code(tuning.base.words)} was pretrained on.* See what its owner says."


def _records(tuning: TuningEvidence) -> Iterator[str]:
    for source in tuning.records.sources:
        licence = code(source.licence) if source.licence else "not recorded"
        digest = f"sha256 {code(source.sha256)}" if source.sha256 else "no hash recorded: a dataset of the hub"
        yield f"Records {code(source.name)}: licence {licence}; {digest}."
    counts = in_categories(tuning.records.by_category)
    yield f"By category: {counts}." if counts else "No categories are recorded."
    if tuning.records.dropped:
        yield (
            f"{tuning.records.dropped:,} records reached max_length ({tuning.records.max_length:,} tokens) and were "
            "dropped, not cut: long answers are rarer than in the files."
        )


def _found(check: CheckEvidence) -> Iterator[str]:
    sought = {code_: words for code_, words in SOUGHT.items() if code_ != "leak" or check.held_out_compared}
    *counts, last = (f"{check.findings.get(code_, 0):,} {words}" for code_, words in sought.items())
    yield f"A check of the {check.records:,} records in the files found {', '.join(counts)} and {last}."
    if not check.held_out_compared:
        yield "The held-out records were split from the same files: near-duplicates across the split may flatter them."
    private = [f"{count:,} with {PRIVATE.get(kind, kind)}" for kind, count in check.private.items() if count]
    told = ", ".join(private) or "none"
    yield (
        f"Records with personal or secret matter, by patterns that are neither complete nor sure: {told}. Typos, false "
        "statements and biases are not looked for."
    )
