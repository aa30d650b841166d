"""What a run says of the model that it wrote, as data beside the weights: the card is made from it."""

import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

import roslin
from roslin.errors import RoslinError
from roslin.model import find_model
from roslin.model.adapted import ALL
from roslin.model.files import text_source
from roslin.model.find import SHIPPED
from roslin.model.fingerprint import fingerprint
from roslin.model.local import licence_in
from roslin.model.published import PUBLISHED
from roslin.publish.card.facts import NOTICE
from roslin.publish.evidence import (
    AdapterEvidence,
    BaseEvidence,
    CheckEvidence,
    CourseEvidence,
    LossEvidence,
    RecordsEvidence,
    SourceEvidence,
    TuningEvidence,
    public_name,
    public_text,
)
from roslin.publish.licences import records_licence
from roslin.records import Record
from roslin.tune import HeldOutLoss, Recipe, Tuned
from roslin.tune.recipe import Adapter
from roslin.workflows.model_folder import compare, compare_by_category, hub_name
from roslin.workflows.run_folder import recipe_values

NOTICE_LICENCE = "cc-by-sa-4.0"
"""The licence of bases with a notice: the shipped one, and what was tuned from it, which share-alike binds."""
FULL = "Full fine-tuning"


@dataclass(frozen=True)
class Gathered:
    """What is known of a run's materials, beside its recipe."""

    train: Sequence[Record]
    dropped: int
    sources: Sequence[SourceEvidence]
    train_sha256: str | None = None
    check: CheckEvidence | None = None
    base_fingerprint: str | None = None
    processes: int = 1


def tuning_evidence(
    recipe: Recipe,
    tuned: Tuned,
    gathered: Gathered,
    *,
    name: str,
    before: HeldOutLoss,
    after: HeldOutLoss,
    chosen_on: str,
) -> TuningEvidence:
    """What the card of a run states. `of_folder` adds what is known once its folder is written."""
    records = RecordsEvidence(
        sources=list(gathered.sources),
        train=len(gathered.train),
        train_sha256=gathered.train_sha256,
        by_category=dict(sorted(Counter(record.category or "none" for record in gathered.train).items())),
        held_out=len(after.tokens),
        dropped=gathered.dropped,
        max_length=recipe.max_length,
        check=gathered.check,
    )
    notice = _notice(recipe)
    return TuningEvidence(
        fingerprint=None,
        name=name,
        parameters=tuned.decoder.config.parameter_count,
        languages=["en"] if recipe.model == SHIPPED else [],
        base=_base(recipe, notice, gathered.base_fingerprint),
        records=records,
        course=_course(recipe, tuned, gathered.processes),
        loss=LossEvidence.of(
            compare(before, after, with_end=True),
            compare(before, after, with_end=False),
            compare_by_category(before, after),
            chosen_on,
        ),
    )


def of_folder(evidence: TuningEvidence, folder: Path, adapter: AdapterEvidence | None = None) -> TuningEvidence:
    """The same of the weights that were written into a folder."""
    try:
        digest = fingerprint(folder)
    except RoslinError:  # an adapter's base that has gone meanwhile
        digest = None
    return evidence.model_copy(update={"fingerprint": digest, "adapter": adapter})


def _base(recipe: Recipe, notice: bool, digest: str | None) -> BaseEvidence:
    return BaseEvidence(
        words=base_in_words(recipe.model),
        hub_name=hub_name(recipe.model),
        revision=recipe.revision,
        fingerprint=digest,
        licence=base_licence(recipe, notice),
    )


def _notice(recipe: Recipe) -> bool:
    return (text_source(find_model(recipe.model, recipe.revision)) / NOTICE).is_file()


def base_licence(recipe: Recipe, notice: bool) -> str | None:
    """That of a base whose licence is known: published, or stated in its own card."""
    if notice:
        return NOTICE_LICENCE
    if recipe.model in PUBLISHED:
        return PUBLISHED[recipe.model].licence
    return licence_in(text_source(find_model(recipe.model, recipe.revision)))


def _course(recipe: Recipe, tuned: Tuned, processes: int) -> CourseEvidence:
    device = tuned.decoder.device
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return CourseEvidence(
        method=method_in_words(recipe.adapter),
        recipe=public_recipe(recipe),
        updates=tuned.updates,
        epochs=tuned.updates / tuned.updates_in_all * recipe.epochs,
        tokens=tuned.tokens,
        seconds=tuned.seconds,
        hardware=hardware(gpu, processes),
        gpus=[gpu] * processes if gpu else [],
        versions={"roslin": roslin.__version__, "torch": torch.__version__},
    )


def method_in_words(adapter: Adapter | None) -> str:
    """What was trained."""
    if adapter is None:
        return FULL
    where = "all linear layers" if adapter.modules == [ALL] else ", ".join(adapter.modules)
    scaling = f"alpha {adapter.alpha:g}{' (rsLoRA)' if adapter.rslora else ''}"
    frozen = "frozen in 4 bits (nf4)" if adapter.quantize == "nf4" else "frozen"
    return (
        f"LoRA of rank {adapter.rank}, {scaling}, dropout {adapter.dropout:g} on {where}, and the rows of new keys, "
        f"beside weights that were {frozen}"
    )


def hardware(gpu: str | None, processes: int) -> str:
    """The machine in words."""
    if gpu:
        return gpu if processes == 1 else f"{processes} × {gpu}"
    threads = f"{torch.get_num_threads()} CPU threads ({platform.machine()})"
    return threads if processes == 1 else f"{processes} processes of {threads}"


def base_in_words(model: str) -> str:
    """What to call a base where others read it."""
    if model == SHIPPED:
        return "Roslin's small base"
    return hub_name(model) or Path(model).expanduser().resolve().name


def public_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every path cut to its name."""
    values: dict[str, Any] = recipe_values(recipe)
    values["model"] = public_name(values["model"])
    values["records"] = [public_name(name) for name in values["records"]]
    values["output"] = public_name(values["output"])
    if values["held_out"].get("file"):
        values["held_out"]["file"] = public_name(values["held_out"]["file"])
    values["samples"] = [public_text(text) for text in values["samples"]]
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def source_evidence(name: str, sha256: str | None, licence: str | None) -> SourceEvidence:
    """A file of records, or a dataset of the hub, with the licence that is known, or else that was stated for it."""
    called = name if sha256 is None else public_name(name)
    return SourceEvidence(name=called, sha256=sha256, licence=records_licence(called, sha256) or licence)
