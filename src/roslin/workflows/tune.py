"""Tuning from a recipe to a model's folder or an adapter's: progress on the terminal, sample answers, the card."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from roslin.answer import Roslin
from roslin.errors import InputError
from roslin.memory import gib
from roslin.model import Decoder, find_model
from roslin.model.adapted import merge
from roslin.publish import TOO_FEW
from roslin.publish.card import write_first_card
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
from roslin.tune.plan import plan_words
from roslin.tune.processes import Processes, joined, restarts
from roslin.tune.setup import choose_device
from roslin.workflows.loss_table import loss_table
from roslin.workflows.machine import enough_memory, make_folder
from roslin.workflows.model_folder import (
    adapter_use,
    compare,
    compare_by_category,
    write_adapter_folder,
    write_model_folder,
)
from roslin.workflows.plan_file import as_begun, finish_plan, write_plan
from roslin.workflows.run_facts import RunFacts
from roslin.workflows.run_folder import ADAPTER, MODEL, alone_in, check_droppable, drop_run, write_recipe
from roslin.workflows.tuning_evidence import Gathered, of_folder, tuning_evidence

SHOWN_DROPPED = 5
SAMPLE_TOKENS = 128


@enough_memory()
def tune(recipe: Recipe, *, restart: bool, console: Console) -> Path:
    """Run a recipe and write `output/model`, or `output/adapter`, or both; returns the folder that was written last.

    Of many processes that torchrun started, all call this: the first one writes, and has the console that is shown.
    Goes on from the newest checkpoint in the output folder; `restart` drops it once the recipe and its
    records are known to be sound. Raises what `prepare` and `fit` raise; InputError or MachineError for a folder that
    cannot be written to.
    """
    folder = _result(recipe)
    sharding = recipe.sharding
    with (
        joined(choose_device(recipe), sharding.timeout_seconds, offload=sharding.offload) as processes,
        ExitStack() as held,
    ):
        restart = restart and not processes.any(restarts() > 0)  # what was to be dropped is dropped already
        processes.first_does(lambda: _take_folder(recipe, folder, restart, held))
        _tune(recipe, restart, console, processes)
    return folder


def _take_folder(recipe: Recipe, folder: Path, restart: bool, held: ExitStack) -> None:
    """See that the run can work in its output folder, and keep others out of it for as long as `held` is."""
    if restart:
        check_droppable(recipe)
    elif folder.exists():
        raise InputError(f"{folder} is already there: this run is finished. Give another output=…, or --restart.")
    make_folder(recipe.output)
    held.enter_context(alone_in(recipe.output))


def _result(recipe: Recipe) -> Path:
    """What a run writes last: when it is there, the run is finished."""
    return recipe.output / (MODEL if recipe.adapter is None or recipe.adapter.merge else ADAPTER)


def _tune(recipe: Recipe, restart: bool, console: Console, processes: Processes) -> None:
    console.print("Checking records and loading the model …")
    prepared = prepare(recipe if restart else as_begun(recipe), processes)
    _say_what_is_tuned(recipe, prepared, console)
    if restart:
        processes.first_does(lambda: drop_run(recipe.output))
    facts = RunFacts(recipe, prepared)
    with facts.ending():
        tuned = fit(recipe, prepared, callbacks(recipe, prepared, facts, console), facts=facts.for_trackers)
        if processes.is_first:
            console.print(finish_plan(recipe, prepared, tuned), markup=False, highlight=False)
            save(recipe, prepared, tuned, facts.gathered())
            facts.finish(tuned)
    _say_result(recipe, tuned, console)


@enough_memory()
def check_run(recipe: Recipe, console: Console) -> None:
    """Do all that comes before the first update, and say what a run would tune. Raises what `prepare` raises."""
    _say_what_is_tuned(recipe, prepare(recipe), console)
    console.print("The recipe and its records are sound.")


def callbacks(recipe: Recipe, prepared: Prepared, facts: RunFacts, console: Console) -> Callbacks:
    """Lines for the terminal: one an update, the held-out loss by category, and sample answers when they are due.

    The run's copy of the recipe, its plan and its facts are written when tuning starts, after `fit` found that the
    folder holds no other run.
    """

    def start(progress: Progress, updates: int) -> None:
        write_recipe(recipe, prepared)
        write_plan(recipe, prepared)
        facts.begin(progress.update)
        begun = f"goes on from update {progress.update}" if progress.update else "starts"
        console.print(f"Tuning {begun} of {updates} updates. Ctrl-C stops it; the same command goes on.")

    def step(log: UpdateLog) -> None:
        console.print(log.line(), markup=False, highlight=False)

    def evaluate(log: EvaluationLog, decoder: Decoder) -> None:
        by_category = " · ".join(f"{name} {loss:.3f}" for name, loss in log.held_out.by_category().items())
        mark = " (lowest so far)" if log.best else ""
        console.print(f"held-out loss {log.held_out.loss:.3f}{mark}: {by_category}", markup=False, highlight=False)
        if recipe.sample_every and log.update % recipe.sample_every == 0:
            _show_samples(decoder, prepared.tokenizer, recipe.samples, recipe.seed, console)

    def warn(text: str) -> None:
        console.print(text, style="yellow", markup=False, highlight=False)

    return Callbacks(on_start=start, on_step=step, on_evaluate=evaluate, on_warning=warn)


def save(recipe: Recipe, prepared: Prepared, tuned: Tuned, gathered: Gathered) -> None:
    """Write the model's folder, the adapter's before it if there is one, each with its evidence and its card.

    Merging the adapter changes the tuned decoder: it is a plain one afterwards.
    """
    base = find_model(recipe.model, recipe.revision)
    evidence = tuning_evidence(
        recipe,
        tuned,
        gathered,
        name=recipe.output.resolve().name,
        before=tuned.before,
        after=tuned.held_out,
        chosen_on=_chosen_on(recipe),
    )
    if recipe.adapter is not None:
        use = adapter_use(recipe, prepared)
        write_adapter_folder(
            recipe.output / ADAPTER,
            recipe,
            tuned.decoder,
            prepared,
            base=base,
            finish=lambda partial: write_first_card(partial, of_folder(evidence, partial, use)),
        )
        if not recipe.adapter.merge:
            return
        merge(tuned.decoder, prepared.stored_dtype)
    write_model_folder(
        recipe.output / MODEL,
        tuned.decoder,
        prepared.tokenizer,
        dtype=prepared.stored_dtype,
        base=base,
        finish=lambda partial: write_first_card(partial, of_folder(evidence, partial)),
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
        console.print(f"  {question}", style="bold", markup=False, highlight=False)
        console.print(f"  {answer.text}\n", markup=False, highlight=False)


def _say_what_is_tuned(recipe: Recipe, prepared: Prepared, console: Console) -> None:
    tokens = sum(len(example.ids) for example in prepared.examples)
    console.print(
        f"{recipe.model}: {prepared.decoder.config.parameter_count / 1e6:,.1f} M parameters, "
        f"{str(prepared.decoder.dtype).removeprefix('torch.')} passes on {prepared.decoder.device}, fp32 updates. "
        f"{len(prepared.examples):,} records to tune on ({tokens:,} tokens) in {prepared.course.updates:,} updates, "
        f"{len(prepared.held_out):,} held out.",
        markup=False,
        highlight=False,
    )
    plan = prepared.plan
    console.print(f"Planned: {plan.needs}; {plan_words(plan)}.", markup=False, highlight=False)
    if not plan.fits:  # on a GPU that is refused
        console.print(f"That is more than this machine's memory of {gib(plan.memory)} GiB holds.", style="yellow")
    if recipe.adapter is not None:
        learning = sum(p.numel() for p in prepared.decoder.parameters() if p.requires_grad)
        console.print(f"An adapter of {learning / 1e6:,.1f} M parameters learns; the base's own are frozen.")
    if prepared.dropped:
        console.print(f"{len(prepared.dropped)} records reach {recipe.max_length} tokens and are dropped:")
        for dropped in prepared.dropped[:SHOWN_DROPPED]:
            console.print(f"  {dropped.tokens:,} tokens: {_opening(dropped.record)}", markup=False, highlight=False)
        if len(prepared.dropped) > SHOWN_DROPPED:
            console.print(f"  … and {len(prepared.dropped) - SHOWN_DROPPED} more: `roslin records check` lists them.")


def _opening(record: Record) -> str:
    return record.instruction if len(record.instruction) <= 60 else f"{record.instruction[:59]}…"


def _say_result(recipe: Recipe, tuned: Tuned, console: Console) -> None:
    whole = compare(tuned.before, tuned.held_out, with_end=True)
    was, now, change = whole.figures()
    few = f" ({TOO_FEW})" if whole.too_few else ""
    by_category = compare_by_category(tuned.before, tuned.held_out)
    console.print(loss_table("Held-out response loss", ("base", "tuned"), whole, by_category))
    early = " It was stopped when the held-out loss no longer fell." if tuned.stopped_early else ""
    console.print(
        f"Held-out response loss {was} before, {now} after; change {change}{few}.{early}\n"
        f"{_where(recipe)} Next: roslin chat {_result(recipe)}",
        markup=False,
        highlight=False,
    )


def _where(recipe: Recipe) -> str:
    model, adapter = recipe.output / MODEL, recipe.output / ADAPTER
    if recipe.adapter is None:
        return f"The model is in {model}."
    if not recipe.adapter.merge:
        return f"The adapter is in {adapter}; it is used beside its base, {recipe.model}."
    return f"The model is in {model}, the adapter merged into it; the adapter alone is in {adapter}."
