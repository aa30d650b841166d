"""A finished model on disk: weights, tokenizer, card and notices, in a folder that appears only when it is whole."""

import platform
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import roslin
from roslin.errors import MachineError
from roslin.model import Decoder, find_model, save_decoder
from roslin.model.find import HUB_NAME, SHIPPED
from roslin.publish import CardFacts, LossComparison
from roslin.records import Record
from roslin.statistics import paired_ratio_difference, ratio_interval
from roslin.tokens import Tokenizer
from roslin.tune import HeldOutLoss, Recipe, Tuned
from roslin.tune.state import flush
from roslin.workflows.machine import writing
from roslin.workflows.run_folder import recipe_yaml

SMALL = 500_000_000
"""Below this many parameters a card says that the model learns form and not facts."""

NOTICE = "NOTICE.md"
"""Attributions in a base's folder; they travel into the folder and the card of every model made from it."""
NOTICE_LICENCE = "cc-by-sa-4.0"
"""The licence of bases with such a notice: the shipped one, and what was tuned from it, which share-alike binds."""


def write_model_folder(
    folder: Path,
    decoder: Decoder,
    tokenizer: Tokenizer,
    *,
    dtype: torch.dtype,
    base: Path,
    finish: Callable[[Path], None],
) -> None:
    """Write a folder that transformers loads; `finish` adds to it before it takes its name.

    Raises MachineError when it cannot be written; nothing half-made is left.
    """
    partial = folder.with_name(folder.name + ".partial")
    try:
        with writing(folder):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            save_decoder(decoder, partial, dtype=dtype, end_id=tokenizer.end_id)
            tokenizer.save(partial)
            if (base / NOTICE).is_file():
                shutil.copy(base / NOTICE, partial / NOTICE)
            finish(partial)
            for path in [*partial.iterdir(), partial]:
                flush(path)
            if folder.exists():
                shutil.rmtree(folder)
            partial.rename(folder)
            flush(folder.parent)
    except MachineError:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def compare(before: HeldOutLoss, after: HeldOutLoss, *, with_end: bool) -> LossComparison:
    """Held-out loss before and after, with intervals over the records."""
    before_nll = before.nll if with_end else before.nll_without_end
    after_nll = after.nll if with_end else after.nll_without_end
    tokens = after.tokens if with_end else after.tokens_without_end
    return LossComparison(
        records=len(tokens),
        before=ratio_interval(before_nll, tokens),
        after=ratio_interval(after_nll, tokens),
        change=paired_ratio_difference(before_nll, after_nll, tokens),
    )


def card_facts(
    recipe: Recipe,
    tuned: Tuned,
    *,
    name: str,
    train: Sequence[Record],
    dropped: int,
    before: HeldOutLoss,
    after: HeldOutLoss,
    chosen_on: str,
) -> CardFacts:
    """Gather what the card of a run states."""
    base = find_model(recipe.model, recipe.revision)
    notice = (base / NOTICE).read_text(encoding="utf-8") if (base / NOTICE).is_file() else ""
    parameters = sum(p.numel() for p in tuned.decoder.parameters())
    was, now = before.by_category(), after.by_category()
    return CardFacts(
        name=name,
        base=_base_in_words(recipe.model),
        base_model=_hub_name(recipe.model),
        parameters=parameters,
        languages=["en"] if notice else [],
        licence=NOTICE_LICENCE if notice else None,
        records_source=recipe.records,
        records_by_category=Counter(record.category or "none" for record in train),
        dropped=dropped,
        recipe_yaml=recipe_yaml(recipe),
        updates=tuned.updates,
        epochs_seen=tuned.updates / tuned.updates_in_all * recipe.epochs,
        tokens=tuned.tokens,
        seconds=tuned.seconds,
        hardware=hardware(tuned.decoder.device),
        versions={"roslin": roslin.__version__, "torch": torch.__version__},
        comparison=compare(before, after, with_end=True),
        comparison_without_end=compare(before, after, with_end=False),
        by_category={category: (was[category], now[category]) for category in now},
        chosen_on=chosen_on,
        notice=notice,
        small=parameters < SMALL,
    )


def _hub_name(model: str) -> str | None:
    """The name of a base on the hub, when that is where it came from."""
    return model if HUB_NAME.fullmatch(model) and not Path(model).is_dir() else None


def _base_in_words(model: str) -> str:
    if model == SHIPPED:
        return "Roslin's small base"
    return _hub_name(model) or Path(model).expanduser().resolve().name


def hardware(device: torch.device) -> str:
    """The machine in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads ({platform.machine()})"
