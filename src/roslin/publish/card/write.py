"""Writing a card and the data that it is made from into a model folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from roslin.errors import write_failed
from roslin.publish.card.benchmarks import SECTION as BENCHMARKS
from roslin.publish.card.benchmarks import benchmarks_markdown
from roslin.publish.card.facts import CardFacts, ModelFiles
from roslin.publish.card.held_out import RESPONSES_SECTION, responses_markdown
from roslin.publish.card.limits import SECTION as LIMITS
from roslin.publish.card.limits import limits_markdown
from roslin.publish.card.render import render_card, rerender_card
from roslin.publish.card.results import FILE, FOLDER, eval_results_yaml
from roslin.publish.evidence import Evidence, TuningEvidence, read_evidence, write_evidence
from roslin.publish.evidence.file import write_whole
from roslin.publish.sections import CARD, put_section, read_card

if TYPE_CHECKING:
    from pathlib import Path

    from roslin.publish.evidence import BenchmarkEvidence, FollowedEvidence, LimitsEvidence, ResponsesEvidence


def write_first_card(folder: Path, tuning: TuningEvidence) -> None:
    """Write roslin.json and README.md into a folder that a run has just filled. Raises MachineError."""
    evidence = Evidence(tuning=tuning)
    write_evidence(folder, evidence)
    facts = CardFacts(name=tuning.name, files=ModelFiles.of(folder), evidence=evidence)
    write_whole(folder / CARD, render_card(facts).encode("utf-8", "backslashreplace"))


@dataclass(frozen=True)
class Rewritten:
    """A card as it was, and as it is now."""

    path: Path
    text: str


def rewritten_card(facts: CardFacts, card: Path, *, force: bool) -> Rewritten:
    """The card at this place again, or a new one; nothing is written. Raises what `rerender_card` raises."""
    if not card.is_file():
        return Rewritten(card, render_card(facts))
    return Rewritten(card, rerender_card(facts, card, read_card(card), force=force))


def write_card(rewritten: Rewritten) -> None:
    """Write the card. Raises MachineError."""
    write_whole(rewritten.path, rewritten.text.encode("utf-8", "backslashreplace"))


def write_results(folder: Path, evidence: Evidence) -> Path | None:
    """Write the file of `.eval_results`, or take Roslin's own away where nothing was measured. Raises MachineError."""
    path, text = folder / FOLDER / FILE, eval_results_yaml(evidence)
    try:
        if text is None:
            path.unlink(missing_ok=True)
            return None
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise write_failed(path, error) from error
    write_whole(path, text.encode())
    return path


def record_benchmarks(folder: Path, found: BenchmarkEvidence) -> Path:
    """Keep scores in roslin.json and put them into the card. Gives the card's path; raises what `put_section` does."""
    evidence = _of_these_weights(folder, found.fingerprint).with_benchmarks(found)
    card = put_section(folder, BENCHMARKS, benchmarks_markdown(evidence.benchmarks))
    write_evidence(folder, _joined(folder, evidence))
    return card


def record_limits(folder: Path, found: LimitsEvidence) -> Path:
    """The same for what probes found."""
    card = put_section(folder, LIMITS, limits_markdown(found))
    write_evidence(folder, read_evidence(folder).model_copy(update={"limits": found}))
    return card


def record_responses(folder: Path, found: ResponsesEvidence | None, followed: FollowedEvidence | None) -> Path:
    """The same for answers to held-out records and to instructions with checks, whichever there are."""
    new = {name: part for name, part in {"responses": found, "followed": followed}.items() if part}
    [fingerprint] = {part.fingerprint for part in new.values()}
    evidence = _of_these_weights(folder, fingerprint).model_copy(update=new)
    card = put_section(folder, RESPONSES_SECTION, responses_markdown(evidence.responses, evidence.followed))
    write_evidence(folder, read_evidence(folder).model_copy(update=new))
    return card


def _of_these_weights(folder: Path, fingerprint: str | None) -> Evidence:
    return read_evidence(folder).of_weights(fingerprint)


def _joined(folder: Path, evidence: Evidence) -> Evidence:
    return read_evidence(folder).model_copy(update={"benchmarks": evidence.benchmarks})
