"""The card of a model folder, made again from what is recorded: beside the model, and in a store of results."""

from dataclasses import dataclass
from pathlib import Path

from roslin.errors import InputError, RoslinError
from roslin.evaluate.scores import ModelScores, Profile
from roslin.evaluate.store import Store
from roslin.model.fingerprint import fingerprint
from roslin.model.local import has_weights
from roslin.publish.card import (
    CardFacts,
    ModelFiles,
    rewritten_card,
    split_header,
    write_card,
    write_results,
)
from roslin.publish.evidence import (
    EVIDENCE,
    BenchmarkEvidence,
    Evidence,
    Stated,
    TuningEvidence,
    read_evidence,
    write_evidence,
)
from roslin.publish.sections import CARD, read_card


@dataclass(frozen=True)
class CardOptions:
    """What the command was asked for."""

    out: Path | None = None
    """Another file than the folder's own card; nothing else is then written."""
    owner: str | None = None
    licence: str | None = None
    store: Path | None = None
    """Results of benchmarks; one that is not there is none where it was not asked for by name."""
    force: bool = False


@dataclass(frozen=True)
class MadeCard:
    """A card that was written, and what it is made from."""

    path: Path
    facts: CardFacts


def make_card(folder: Path, options: CardOptions) -> MadeCard:
    """Write the card of a model folder again, with the evidence and the hub's results beside it.

    Raises InputError for a folder without a model, for evidence with faults, and for a card that a person wrote or
    edited; MachineError when something cannot be written.
    """
    _check_folder(folder)
    recorded = read_evidence(folder)
    weights = fingerprint_or_none(folder)
    stated = Stated(owner=options.owner or recorded.stated.owner, licence=options.licence or recorded.stated.licence)
    known = recorded.model_copy(update={"stated": stated})
    used = _with_store(known.of_weights(weights), weights, options.store)
    path = options.out or folder / CARD
    facts = CardFacts(
        name=_name(folder, recorded.tuning),
        files=ModelFiles.of(folder),
        evidence=used,
        as_tuned=_as_tuned(recorded.tuning, weights),
        header_licence=_header_licence(folder) if recorded.tuning is None else None,
    )
    card = rewritten_card(facts, path, force=options.force)
    if options.out is None:
        _write_evidence(folder, recorded, known, used)
        write_results(folder, used)
    write_card(card)
    return MadeCard(path, facts)


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        what = "a file" if folder.is_file() else "not there"
        raise InputError(f"{folder}: {what}. A card is of a model's folder: give that of a tuned or exported model.")
    if not has_weights(folder):
        raise InputError(
            f"{folder}: holds no model, for it has no weights that Roslin knows (model.safetensors, adapter_model."
            "safetensors and the like). Give a model's folder: output/model of a run, say."
        )


def fingerprint_or_none(folder: Path) -> str | None:
    """The hash of a model folder; None for an adapter whose base is not here."""
    try:
        return fingerprint(folder)
    except RoslinError:
        return None


def _as_tuned(tuning: TuningEvidence | None, weights: str | None) -> bool | None:
    if tuning is None:
        return True
    return None if weights is None or tuning.fingerprint is None else tuning.fingerprint == weights


def _name(folder: Path, tuning: TuningEvidence | None) -> str:
    return tuning.name if tuning else folder.resolve().name


def _header_licence(folder: Path) -> str | None:
    card = folder / CARD
    header = split_header(card, read_card(card))[0] if card.is_file() else {}
    licence = header.get("license")
    return licence if isinstance(licence, str) else None


def _with_store(evidence: Evidence, weights: str | None, path: Path | None) -> Evidence:
    """The evidence with what the store has of exactly these weights, where it knows at least as much."""
    if weights is None or path is None:
        return evidence
    store = Store.open(path)
    for scores in store.scores_of(weights):
        base = base_scores(store, evidence.tuning, scores.profile, scores.shots)
        found = BenchmarkEvidence.of(scores, fingerprint=weights, base=base)
        before = next((each for each in evidence.benchmarks if each.way == found.way), None)
        evidence = evidence.with_benchmarks(_newer(found, before) if before else found)
    return evidence


def _newer(found: BenchmarkEvidence, before: BenchmarkEvidence) -> BenchmarkEvidence:
    """What the store has, with remarks and contamination that only `roslin eval` knew, if of the same scores."""
    if before.own.tasks == found.own.tasks:
        kept = {"contamination": before.contamination, "remarks": before.remarks}
        paired = {} if found.base else {"base": before.base, "paired": before.paired}
        return found.model_copy(update=kept | paired)
    asked, known = (sum(task.asked for task in each.own.tasks.values()) for each in (found, before))
    return found if asked >= known else before


def base_scores(store: Store, tuning: TuningEvidence | None, profile: Profile, shots: int) -> ModelScores | None:
    """What the store has of the base's own weights, asked in the same way."""
    if tuning is None or tuning.base.fingerprint is None:
        return None
    found = store.scores_of(tuning.base.fingerprint)
    return next((each for each in found if (each.profile, each.shots) == (profile, shots)), None)


def _write_evidence(folder: Path, recorded: Evidence, known: Evidence, used: Evidence) -> None:
    """Keep what was stated and what came from the store; measurements of other weights stay as they are."""
    ways = {each.way for each in used.benchmarks}
    others = [each for each in known.benchmarks if each.way not in ways]
    new = known.model_copy(update={"benchmarks": [*used.benchmarks, *others]})
    if new != recorded or (folder / EVIDENCE).is_file():
        write_evidence(folder, new)
