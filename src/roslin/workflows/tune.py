"""Tuning from a recipe to a model folder: progress on the terminal, sample answers, the card."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from roslin.answer import Roslin
from roslin.errors import InputError
from roslin.model import Decoder, find_model
from roslin.publish import write_card
from roslin.records import Record
from roslin.tokens import Tokenizer
from roslin.tune import (
    Callbacks,
    EvaluationLog,
    Prepared,
    Progress,
    Recipe,
    Tuned,
    UpdateLog,
    fit,
    prepare,
)
from roslin.workflows.model_folder import card_facts, compare, recipe_yaml, write_model_folder

SHOWN_DROPPED = 5
SAMPLE_TOKENS = 128


def tune(recipe: Recipe, *, restart: bool, console: Console) -> Path:
    """Run a recipe and write `output/model`; returns that folder.

    Goes on from the newest checkpoint in the output folder; `restart` drops it. Raises what `prepare` and `fit` raise.
    """
    if restart:
        drop_run(recipe.output)
    folder = recipe.output / "model"
    if folder.exists():
        raise InputError(f"{folder} is already there: this run is finished. Give another output=…, or --restart.")
    console.print("Checking records and loading the model …")
    prepared = prepare(recipe)
    _say_what_is_tuned(recipe, prepared, console)
    recipe.output.mkdir(parents=True, exist_ok=True)
    (recipe.output / "recipe.yaml").write_text(recipe_yaml(recipe), encoding="utf-8")
    tuned = fit(recipe, prepared, callbacks(recipe, prepared.tokenizer, console))
    save(recipe, prepared, tuned)
    _say_result(tuned, folder, console)
    return folder


def check_run(recipe: Recipe, console: Console) -> None:
    """Do all that comes before the first update, and say what a run would tune. Raises what `prepare` raises."""
    _say_what_is_tuned(recipe, prepare(recipe), console)
    console.print("The recipe and its records are sound.")


def drop_run(output: Path) -> None:
    """Remove what a run wrote into its output folder, and nothing else that stands there."""
    for name in ("checkpoints", "tensorboard", "model", "model.partial"):
        shutil.rmtree(output / name, ignore_errors=True)
    for name in ("log.jsonl", "recipe.yaml"):
        (output / name).unlink(missing_ok=True)


def callbacks(recipe: Recipe, tokenizer: Tokenizer, console: Console) -> Callbacks:
    """Lines for the terminal: one an update, the held-out loss by category, and sample answers when they are due."""

    def start(progress: Progress, updates: int) -> None:
        begun = f"goes on from update {progress.update}" if progress.update else "starts"
        console.print(f"Tuning {begun} of {updates} updates. Ctrl-C stops it; the same command goes on.")

    def step(log: UpdateLog) -> None:
        console.print(log.line(), highlight=False)

    def evaluate(log: EvaluationLog, decoder: Decoder) -> None:
        by_category = " · ".join(f"{name} {loss:.3f}" for name, loss in log.held_out.by_category().items())
        mark = " (lowest so far)" if log.best else ""
        console.print(f"held-out loss {log.held_out.loss:.3f}{mark}: {by_category}", highlight=False)
        if recipe.sample_every and log.update % recipe.sample_every == 0:
            _show_samples(decoder, tokenizer, recipe.samples, recipe.seed, console)

    return Callbacks(on_start=start, on_step=step, on_evaluate=evaluate)


def save(recipe: Recipe, prepared: Prepared, tuned: Tuned) -> None:
    """Write the model folder with its card."""
    base = find_model(recipe.model, recipe.revision)
    facts = card_facts(
        recipe,
        tuned,
        name=str(recipe.output / "model"),
        train=prepared.train,
        dropped=len(prepared.dropped),
        before=tuned.before,
        after=tuned.held_out,
        chosen_on=_chosen_on(recipe),
    )
    write_model_folder(
        recipe.output / "model",
        tuned.decoder,
        prepared.tokenizer,
        dtype=prepared.stored_dtype,
        base=base,
        finish=lambda partial: write_card(facts, partial),
    )


def _chosen_on(recipe: Recipe) -> str:
    if recipe.patience is None:
        return "Tuning ran for the recipe's epochs, whatever these records said."
    return "The same records decided when tuning stopped, so the tuned figure is slightly flattering."


def _show_samples(decoder: Decoder, tokenizer: Tokenizer, samples: Sequence[str], seed: int, console: Console) -> None:
    model = Roslin(decoder, tokenizer)
    for question, answer in zip(
        samples, model.answer_all(list(samples), max_new_tokens=SAMPLE_TOKENS, seed=seed), strict=True
    ):
        console.print(f"  [bold]{question}[/bold]", highlight=False)
        console.print(f"  {answer.text}\n", markup=False, highlight=False)


def _say_what_is_tuned(recipe: Recipe, prepared: Prepared, console: Console) -> None:
    tokens = sum(len(example.ids) for example in prepared.examples)
    console.print(
        f"{recipe.model}: {prepared.decoder.config.parameter_count / 1e6:,.1f} M parameters, "
        f"{str(prepared.decoder.dtype).removeprefix('torch.')} passes on {prepared.decoder.device}, fp32 updates. "
        f"{len(prepared.examples):,} records to tune on ({tokens:,} tokens), {len(prepared.held_out):,} held out.",
        highlight=False,
    )
    if prepared.dropped:
        console.print(f"{len(prepared.dropped)} records reach {recipe.max_length} tokens and are dropped:")
        for dropped in prepared.dropped[:SHOWN_DROPPED]:
            console.print(f"  {dropped.tokens:,} tokens: {_opening(dropped.record)}", markup=False, highlight=False)
        if len(prepared.dropped) > SHOWN_DROPPED:
            console.print(f"  … and {len(prepared.dropped) - SHOWN_DROPPED} more: `roslin records check` lists them.")


def _opening(record: Record) -> str:
    return record.instruction if len(record.instruction) <= 60 else f"{record.instruction[:59]}…"


def _say_result(tuned: Tuned, folder: Path, console: Console) -> None:
    whole = compare(tuned.before, tuned.held_out, with_end=True)
    early = " It was stopped when the held-out loss no longer fell." if tuned.stopped_early else ""
    console.print(
        f"Held-out response loss {whole.before} before, {whole.after} after; change {whole.change}.{early}\n"
        f"The model is in {folder}. Next: roslin chat {folder}",
        highlight=False,
    )
