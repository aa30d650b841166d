"""A finished model or adapter on disk, with tokenizer, card and notices: its folder appears only when it is whole."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from roslin.errors import MachineError
from roslin.integrations.pipeline_files import add_pipelines
from roslin.model import Decoder, save_decoder
from roslin.model.adapter import save_adapter
from roslin.model.files import text_source
from roslin.model.find import HUB_NAME, MODELSCOPE_NAME, SHIPPED
from roslin.model.local import is_path
from roslin.model.packaged import PACKAGED
from roslin.publish import LossComparison
from roslin.publish.card.facts import NOTICE
from roslin.publish.evidence import AdapterEvidence
from roslin.statistics import paired_ratio_difference, ratio_interval
from roslin.tokens import Tokenizer
from roslin.tune import HeldOutLoss, Prepared, Recipe
from roslin.tune.state import flush
from roslin.workflows.machine import writing


def write_model_folder(
    folder: Path,
    decoder: Decoder,
    tokenizer: Tokenizer,
    *,
    dtype: torch.dtype,
    base: Path,
    finish: Callable[[Path], None],
) -> None:
    """Write a folder that transformers loads, as a pipeline too; `finish` adds to it before it takes its name.

    Raises MachineError when it cannot be written; nothing half-made is left.
    """

    def save(partial: Path) -> None:
        save_decoder(decoder, partial, dtype=dtype, end_id=tokenizer.end_id)
        add_pipelines(partial)

    _write_folder(folder, tokenizer, base, save, finish)


def write_adapter_folder(
    folder: Path, recipe: Recipe, decoder: Decoder, prepared: Prepared, *, base: Path, finish: Callable[[Path], None]
) -> None:
    """Write the adapter that a run trained, as a folder that PEFT loads. Raises MachineError as for a model."""

    def save(partial: Path) -> None:
        assert prepared.lora is not None
        save_adapter(
            decoder,
            partial,
            prepared.lora,
            base=_findable(recipe.model, base),
            revision=recipe.revision,
            base_rows=rows_needed(prepared),
            dtype=prepared.stored_dtype,
        )

    _write_folder(folder, prepared.tokenizer, base, save, finish)


def _findable(model: str, base: Path) -> str:
    """The name by which an adapter finds its base again, from wherever it is loaded."""
    on_modelscope = MODELSCOPE_NAME.fullmatch(model) and not is_path(model)
    if model in (SHIPPED, *PACKAGED) or hub_name(model) or on_modelscope:
        return model
    # Of a file only the folder is resolved: in the hub's cache it is a link to one that stands alone, without its name.
    return str(base.resolve() if base.is_dir() else base.parent.resolve() / base.name)


def rows_needed(prepared: Prepared) -> int:
    """How many rows embedding and head of a base must have for the adapter of a run: one a token at least."""
    return max(prepared.base_rows, prepared.tokenizer.size)


def adapter_use(recipe: Recipe, prepared: Prepared) -> AdapterEvidence:
    """How the adapter of a run is put beside its base."""
    rows = rows_needed(prepared)
    return AdapterEvidence(
        base=hub_name(recipe.model) or "./base",
        revision=recipe.revision,
        rows=rows if rows > prepared.base_rows else None,
        rope_scaling=recipe.rope_scaling,
    )


def _write_folder(
    folder: Path, tokenizer: Tokenizer, base: Path, save: Callable[[Path], None], finish: Callable[[Path], None]
) -> None:
    partial = folder.with_name(folder.name + ".partial")
    try:
        with writing(folder):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            save(partial)
            tokenizer.save(partial)
            if (notice := text_source(base) / NOTICE).is_file():
                shutil.copy(notice, partial / NOTICE)
            finish(partial)
            _take_its_name(partial, folder)
    except MachineError:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _take_its_name(partial: Path, folder: Path) -> None:
    for path in [*partial.iterdir(), partial]:
        flush(path)
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)
    flush(folder.parent)


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


def compare_by_category(before: HeldOutLoss, after: HeldOutLoss) -> dict[str, LossComparison]:
    """The same for each category's records, the end key counted."""
    was, now = before.parts(), after.parts()
    return {name: compare(was[name], now[name], with_end=True) for name in now}


def hub_name(model: str) -> str | None:
    """The name of a base on the hub, when that is where it came from."""
    if model in PACKAGED:
        return PACKAGED[model].origin
    return model if HUB_NAME.fullmatch(model) and not is_path(model) else None
