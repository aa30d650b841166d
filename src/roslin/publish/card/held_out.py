"""The card's section on held-out records: loss before and after tuning, what answers are like, and some of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roslin.evaluate.responses import METRICS
from roslin.publish.card.dataset import MOST_CATEGORIES
from roslin.publish.card.gaps import gaps
from roslin.publish.card.limits import block
from roslin.publish.loss import TOO_FEW
from roslin.publish.markdown import fenced, plain
from roslin.statistics import FEWEST_FOR_INTERVALS

if TYPE_CHECKING:
    from roslin.publish.card.facts import CardFacts
    from roslin.publish.evidence import FollowedEvidence, LossEvidence, ResponsesEvidence
    from roslin.publish.evidence.responses import FigureEvidence, SampleAnswer, SampleEvidence

LOSS_SECTION, RESPONSES_SECTION = "loss", "responses"
"""The names of the sections in a card."""


def loss(facts: CardFacts) -> str:
    """Held-out loss of base and tuned model; nothing for a model that was not tuned here."""
    tuning = facts.evidence.tuning
    return _loss(tuning.loss) if tuning else ""


def _loss(found: LossEvidence) -> str:
    whole, without_end = found.whole.comparison, found.without_end.comparison
    rows = [("end key counted", whole), ("end key left out", without_end)]
    table = "\n".join(f"| {' | '.join((name, *comparison.figures()))} |" for name, comparison in rows)
    sure = f"({TOO_FEW})" if whole.too_few else "with 95 % bootstrap intervals over records"
    largest = sorted(found.by_category, key=lambda name: (-found.by_category[name].records, name))[:MOST_CATEGORIES]
    parts = {name: found.by_category[name].comparison for name in sorted(largest)}
    others = len(found.by_category) - len(parts)
    categories = "\n".join(
        f"| {plain(name)} | {part.records:,} | {' | '.join(part.figures())} |" for name, part in parts.items()
    )
    if others:
        rest = sum(each.records for each in found.by_category.values()) - sum(part.records for part in parts.values())
        categories += f"\n| {others:,} smaller ones | {rest:,} | | | |"
    too_few = any(part.too_few for part in parts.values())
    without = f"\n\nCategories of fewer than {FEWEST_FOR_INTERVALS} records have no intervals." if too_few else ""
    return f"""## How Well It Does on Held-Out Records

Loss on the responses of {whole.records:,} held-out records, in nats a token (lower is better),
{sure}; the change is paired. {found.chosen_on}

| held-out response loss | base | tuned | change |
|---|---|---|---|
{table}

| category | records | base | tuned | change |
|---|---|---|---|---|
{categories}{without}

This is a loss, not a benchmark score: it says how well the model predicts people's answers, not how often it is
right."""


def responses(facts: CardFacts) -> str:
    """What the model answers to held-out records, or that nobody looked."""
    found, followed = facts.evidence.responses, facts.evidence.followed
    parts = [responses_markdown(found, followed)] if found or followed else [_HEADING]
    return "\n\n".join([*parts, *([str(gaps(facts)["responses"])] if found is None else [])])


_HEADING = "### Answers to held-out records"


def responses_markdown(found: ResponsesEvidence | None, followed: FollowedEvidence | None) -> str:
    """The section as Markdown; texts of records and answers stand in blocks of code."""
    parts = [_HEADING]
    if found:
        parts += [_figures(found), _samples(found)]
    if followed:
        parts.append(_followed(followed))
    return "\n\n".join(part for part in parts if part)


def _figures(found: ResponsesEvidence) -> str:
    left_out = f" {found.left_out:,} more are too long for the model." if found.left_out else ""
    opening = (
        f"{found.records:,} records, answers {found.drawing}, in {found.own.dtype}; 95 % intervals.{left_out}"
        " Held out by the word of whoever gave them: whether it was tuned on any of them was not looked for."
        f"{' A verdict is of a paired test, corrected for the number of metrics (Holm).' if found.base else ''}"
    )
    beside = found.base is not None
    base = f" {plain(found.base.name)} |" if found.base else ""
    lines = [f"| |{base} {plain(found.own.name)} |{' verdict |' if beside else ''}", "|---|---|" + "---|---|" * beside]
    for metric in METRICS:
        own = found.own.figures.get(metric.name)
        if own is None:
            continue
        other = f" {_figure(found.base.figures.get(metric.name), metric.decimals)} |" if found.base else ""
        verdict = f" {plain(found.verdicts.get(metric.name, ''))} |" if beside else ""
        lines.append(f"| {metric.title} |{other} {_figure(own, metric.decimals)} |{verdict}")
    return opening + "\n\n" + "\n".join(lines)


def _figure(found: FigureEvidence | None, decimals: int) -> str:
    if found is None:
        return ""
    if found.estimate is None:
        return "too large for a number"
    estimate = f"{found.estimate:.{decimals}f}"
    if found.low is None or found.high is None:
        return estimate
    return f"{estimate} [{found.low:.{decimals}f}, {found.high:.{decimals}f}]"


def _samples(found: ResponsesEvidence) -> str:
    if not found.samples:
        return ""
    both = found.base is not None
    names = (found.own.name, found.base.name if found.base else None)
    opening = (
        f"The first {len(found.samples)} of a shuffle of the records by seed {found.seed}. Nobody chose among them: "
        f"bad answers stand here as they came{', of the base too' if both else ''}. Long texts are cut."
    )
    shown = "\n\n".join(_sample(each, *names) for each in found.samples)
    return f"#### Unselected samples\n\n{opening}\n\n{shown}"


def _sample(each: SampleEvidence, own: str, base: str | None) -> str:
    lines = [f"Instruction: {block(each.instruction)}"]
    lines += [f"Context: {block(each.context)}"] if each.context else []
    lines.append(f"The record's response: {block(each.response)}")
    if each.base and base is not None:
        lines.append(f"{_named(base)}{_flags(each.base)}: {_answer(each.base)}")
    lines.append(f"{_named(own)}{_flags(each.own)}: {_answer(each.own)}")
    return fenced("\n".join(lines), "text")


def _named(name: str) -> str:
    return " ".join(name.split())


def _flags(answer: SampleAnswer) -> str:
    return f" ({', '.join(answer.faults)})" if answer.faults else ""


def _answer(answer: SampleAnswer) -> str:
    return "(not asked: the record is too long for it)" if answer.answer is None else block(answer.answer)


def _followed(found: FollowedEvidence) -> str:
    prompts, instructions = found.prompts_followed.interval, found.instructions_followed.interval
    return (
        "#### Instructions that a program can check\n\n"
        f"IFEval's checks, strictly read, of {found.prompts:,} prompts ({plain(found.source)}), answers "
        f"{found.drawing}: all instructions followed in {prompts} of the prompts, and {instructions} of the "
        f"{found.instructions:,} instructions followed (shares with 95 % intervals)."
    )
