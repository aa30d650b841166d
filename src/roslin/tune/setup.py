"""What a run needs before its first update: checked and split records, examples, the model with its keys."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from roslin import prompt, records
from roslin.errors import InputError
from roslin.memory import PassPrecision, TuningPlan
from roslin.model import Decoder, ModelConfig, find_model, load_config, scaled, text_source
from roslin.model.adapted import Lora, adapt, chosen_modules, quantize_blocks
from roslin.model.adapter import is_adapter
from roslin.model.grad_mode import no_grad
from roslin.records import Record
from roslin.tokens import Example, Tokenizer
from roslin.tune.base import Base, Vocabulary, load_base, refuse_beyond_fp16
from roslin.tune.course import Course
from roslin.tune.faster import set_passes
from roslin.tune.held_out import HeldOutSet, digest_of
from roslin.tune.plan import as_planned, machine_of, plan_run, refuse_shared_adapter, refuse_unless_it_fits
from roslin.tune.precision import DTYPES, choose_precision
from roslin.tune.processes import ALONE, Processes
from roslin.tune.recipe import Adapter, Recipe
from roslin.tune.step import draw_seed
from roslin.tune.trackers import check_installed
from roslin.tune.work import Run, run_of, sizes_of

PARTS_WITH_A_ROW_A_TOKEN = ("embedding.weight", "head.weight", "head.bias")
PARTS_WITH_A_TAUGHT_ROW = ("embedding.rows_KD", "head.rows_KD", "head.biases_K")


@dataclass(frozen=True)
class Dropped:
    """A record that was too long to train on."""

    record: Record
    tokens: int


@dataclass(frozen=True)
class Prepared:
    """All that `fit` works on."""

    decoder: Decoder
    tokenizer: Tokenizer
    train: list[Record]
    """The records behind the examples, in their order."""
    examples: list[Example]
    held_out: HeldOutSet
    course: Course
    dropped: list[Dropped]
    rows_of_new_keys: Mapping[str, list[int]]
    """By parameter, the rows of the keys that the base did not have."""
    low: dict[str, torch.Tensor] | None
    """The low halves of weights, where the decoder holds them only rounded to bf16 or fp16."""
    stored_dtype: torch.dtype
    """What the base's weights are stored in; the tuned model's will be too."""
    fingerprint: str
    base_rows: int
    """Rows of the base's embedding, before it was fitted to the tokenizer."""
    lora: Lora | None
    """What the decoder's adapter is made of, if the run trains one."""
    plan: TuningPlan
    """What of memory the run takes, and the settings that its recipe leaves open."""
    run: Run
    """Its updates, by their tokens."""
    processes: Processes = ALONE
    """Among which the decoder is cut up."""


def prepare(recipe: Recipe, processes: Processes = ALONE) -> Prepared:
    """Read, check and tokenize the records, then load the model: faults of the data show before the weights move.

    Of many processes each does so, and loads its shards of the model. Raises InputError for bad records, for a model
    that cannot be found, for modules that an adapter cannot be added to, for trackers that are not installed, and when
    nothing is left to train on; MachineError, with the plan, when it cannot fit the GPU.
    """
    check_installed(recipe)
    refuse_shared_adapter(recipe, shared=processes.share_a_model)
    folder = find_model(recipe.model, recipe.revision)
    lora = None if recipe.adapter is None else _lora(recipe.adapter, folder)
    tokenizer = Tokenizer.load(text_source(folder))
    new_ids = tokenizer.add_keys()
    found = records.load(recipe.records, mapping=recipe.mapping, keys=prompt.FORBIDDEN_IN_RECORDS)
    fitting, dropped = fitting_records(tokenizer, found, recipe.max_length)
    train, held_out, more_dropped = _split(recipe, tokenizer, fitting)
    if not train or not held_out:
        raise InputError(
            f"Nothing to {'measure on' if train else 'tune on'}: of {len(found)} records, {len(fitting)} are shorter "
            f"than max_length {recipe.max_length}; {len(train)} of those are for training, {len(held_out)} held out."
        )
    examples, held_out_examples = tokenizer.examples(train), tokenizer.examples(held_out)
    course = Course(recipe, [len(example.ids) for example in examples])
    config = _config(recipe, folder)
    passes_in = choose_precision(recipe, choose_device(recipe))
    precision = DTYPES[passes_in]
    run = run_of(course, sizes_of(examples), recipe.row_length)
    plan = _plan(recipe, config, passes_in, run, processes)
    base = _load(recipe, folder, config, Vocabulary(tokenizer.size, new_ids, recipe.init_keys), precision, processes)
    taught_ids = sorted({*new_ids, *range(config.vocab_rows, tokenizer.size)})
    if lora:
        _adapt(recipe, base.decoder, lora, precision, taught_ids)
    set_passes(base.decoder, plan)
    return Prepared(
        decoder=base.decoder,
        tokenizer=tokenizer,
        train=train,
        examples=examples,
        held_out=HeldOutSet(held_out_examples, [record.category for record in held_out], recipe.row_length),
        course=course,
        dropped=dropped + more_dropped,
        rows_of_new_keys=_rows_of_new_keys(base.decoder, new_ids, taught_ids if lora else None),
        low=base.low,
        stored_dtype=base.stored_dtype,
        fingerprint=fingerprint(as_planned(recipe, plan), precision, base.digest, [*examples, *held_out_examples]),
        base_rows=config.vocab_rows,
        lora=lora,
        plan=plan,
        run=run,
        processes=processes,
    )


def _plan(recipe: Recipe, config: ModelConfig, precision: PassPrecision, run: Run, processes: Processes) -> TuningPlan:
    """The run's plan, of many processes the first one's. Raises MachineError when a GPU's memory cannot suffice."""
    machine = machine_of(choose_device(recipe), processes.count)
    plan = plan_run(recipe, config, precision, run, machine)
    refuse_unless_it_fits(plan, machine)
    first, *_ = processes.collected(plan)  # machines may differ; what all do together may not
    return first


def _lora(adapter: Adapter, folder: Path) -> Lora:
    """What a recipe's adapter is. Raises InputError for a base that is an adapter, and for modules it does not have."""
    if is_adapter(folder):
        raise InputError(f"{folder} is an adapter itself: tune one on its merged model, or leave the adapter out.")
    modules = chosen_modules(load_config(folder), adapter.modules)
    return Lora(adapter.rank, adapter.alpha, adapter.dropout, adapter.rslora, modules)


def _split(
    recipe: Recipe, tokenizer: Tokenizer, found: list[Record]
) -> tuple[list[Record], list[Record], list[Dropped]]:
    """Records to train on, held out, and dropped from a held-out file; too long ones are already gone from `found`."""
    held_out = recipe.held_out
    if held_out.file:
        others = records.load([held_out.file], mapping=recipe.mapping, keys=prompt.FORBIDDEN_IN_RECORDS)
        _refuse_overlap(held_out.file, found, others)
        return found, *fitting_records(tokenizer, others, recipe.max_length)
    if held_out.split == "hash":
        return *records.split_by_hash(found, held_out.fraction or 0.05), []
    count = held_out.count or 200
    if count >= len(found):
        raise InputError(f"held_out.count is {count}, and there are only {len(found)} records short enough to use.")
    train, test = records.dolly_split(len(found), count)
    return [found[i] for i in train], [found[i] for i in test], []


def _refuse_overlap(file: str, train: Sequence[Record], held_out: Sequence[Record]) -> None:
    asked = {(record.instruction, record.context) for record in train}
    both = [record.instruction for record in held_out if (record.instruction, record.context) in asked]
    if both:
        raise InputError(
            f"{file}: {len(both)} of its {len(held_out)} records are asked in the training records too, such as "
            f"{both[0][:60]!r}. A loss on them is not held out. `roslin records check … --held-out {file}` lists them."
        )


def fitting_records(
    tokenizer: Tokenizer, found: Sequence[Record], max_length: int
) -> tuple[list[Record], list[Dropped]]:
    """The records shorter than `max_length` tokens (Dolly drops those that reach it), and the others."""
    lengths = tokenizer.lengths(found)
    kept = [record for record, length in zip(found, lengths, strict=True) if length < max_length]
    return kept, [
        Dropped(record, length) for record, length in zip(found, lengths, strict=True) if length >= max_length
    ]


def choose_device(recipe: Recipe) -> torch.device:
    """The recipe's device; `auto` is CUDA where there is one."""
    if recipe.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(recipe.device)


def fingerprint(recipe: Recipe, precision: torch.dtype, base: bytes, examples: Sequence[Example]) -> str:
    """Hash of what decides a run's numbers: a checkpoint continues only such a run.

    What the recipe leaves open goes in as it was chosen (`precision`; `auto` differs by machine). The base goes in by
    its digest; records and held-out records by their ids, in order, wherever they lie.
    """
    free = {
        "checkpointing",
        "explosion",
        "output",
        "keep_checkpoints",
        "checkpoint_every",
        "sample_every",
        "samples",
        "sharding",
        "trackers",
        "tensorboard",
        "tokens_per_pass",
    }
    by_content = {"model", "revision", "records", "mapping", "held_out", "precision", "device"}
    exclude: dict[str, Any] = dict.fromkeys(free | by_content, True) | {"adapter": {"merge"}}
    said = recipe.model_dump_json(exclude=exclude)
    return hashlib.sha256(f"{said} {precision} {digest_of(examples)}".encode() + base).hexdigest()


def _config(recipe: Recipe, folder: Path) -> ModelConfig:
    config = load_config(folder)
    if recipe.rope_scaling is not None:
        config = scaled(config, recipe.rope_scaling)
    if config.positions < recipe.max_length:
        raise InputError(
            f"max_length {recipe.max_length} is beyond the {config.positions} positions of {recipe.model}. "
            f"Set max_length={config.positions}, or stretch them (rope_scaling: yarn:4, say)."
        )
    return config


def _load(
    recipe: Recipe,
    folder: Path,
    config: ModelConfig,
    vocabulary: Vocabulary,
    precision: torch.dtype,
    processes: Processes,
) -> Base:
    device = choose_device(recipe)
    if not processes.share_a_model:
        place = torch.device("cpu") if _is_quantized(recipe) else device
        return load_base(folder, config, vocabulary, device=place, precision=None if recipe.adapter else precision)
    from roslin.tune.shard_loading import load_in_shards

    return load_in_shards(
        folder,
        config,
        vocabulary,
        device=device,
        precision=precision,
        sharding=recipe.sharding,
        processes=processes,
    )


def _is_quantized(recipe: Recipe) -> bool:
    return recipe.adapter is not None and recipe.adapter.quantize == "nf4"


@no_grad
def _adapt(recipe: Recipe, decoder: Decoder, lora: Lora, precision: torch.dtype, taught_ids: Sequence[int]) -> None:
    """Put an adapter and new rows into a decoder, whose own weights are frozen, and in 4 bits if so asked."""
    if precision == torch.float16 != decoder.dtype:
        for name, parameter in decoder.named_parameters():
            refuse_beyond_fp16(name, parameter.detach())
    if _is_quantized(recipe):
        quantize_blocks(decoder, choose_device(recipe))
    decoder.to(precision)
    adapt(decoder, lora, taught_ids, torch.Generator().manual_seed(draw_seed(recipe.seed, 0)))


def _rows_of_new_keys(
    decoder: Decoder, new_ids: Sequence[int], taught_ids: Sequence[int] | None
) -> dict[str, list[int]]:
    """Where the keys' rows are among the parameters: by id in whole matrices, or among the rows that are taught."""
    parts = PARTS_WITH_A_ROW_A_TOKEN if taught_ids is None else PARTS_WITH_A_TAUGHT_ROW
    rows = list(new_ids) if taught_ids is None else [taught_ids.index(token) for token in new_ids]
    return {name: rows for name, _ in decoder.named_parameters() if name in parts and rows}
