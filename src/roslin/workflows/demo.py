"""The demo: a base model that follows no instruction becomes one that does, in a few minutes on a laptop.

Each step leaves a file behind; the same command goes on after the last whole one.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch

import roslin
from roslin import prompt, records
from roslin.answer import Roslin
from roslin.model import find_model, fit_vocabulary, load_decoder
from roslin.model.fingerprint import fingerprint
from roslin.publish.card import write_first_card
from roslin.publish.licences import STARTER_RECORDS as STARTER_LICENCE
from roslin.records import Record
from roslin.statistics import Interval, wilson_interval
from roslin.tokens import Tokenizer
from roslin.tune import Callbacks, HeldOut, HeldOutLoss, HeldOutSet, Recipe, Tuned, fit, prepare
from roslin.workflows.demo_folder import (
    Fingerprint,
    State,
    claim,
    clear,
    read_json,
    state_of,
    stored,
    write_json,
)
from roslin.workflows.machine import enough_memory, make_folder, writing
from roslin.workflows.model_folder import compare, write_model_folder
from roslin.workflows.run_facts import check_records
from roslin.workflows.run_folder import alone_in
from roslin.workflows.tuning_evidence import Gathered, of_folder, source_evidence, tuning_evidence

STARTER_RECORDS = Path(str(resources.files("roslin") / "assets" / "records" / "starter.jsonl"))

JUDGED_SHARE = 0.15
"""Of the records, kept aside to judge the tuned model; nothing else ever sees them."""
STOPPING_SHARE = 0.10
"""Of the others, kept from training to say when to stop."""

TIMES_ABOUT_ROSLIN = 3
"""How often an epoch shows a record about Roslin: facts that the base cannot know need repeating."""

SHOWN_TOKENS = 64
JUDGED_TOKENS = 256
"""Dolly's default, within which an answer should have ended."""
SEED = 42


@dataclass(frozen=True)
class Shown:
    """A held-out question with the answers of the base and of the tuned model."""

    instruction: str
    context: str
    about_roslin: bool
    before: str
    after: str


@dataclass(frozen=True)
class Result:
    """What the demo found."""

    parameters: int
    train: int
    stopping: int
    judged: int
    updates: int
    updates_in_all: int
    epochs: float
    tokens: int
    tuning_seconds: float
    seconds: float
    loss: tuple[Interval, Interval, Interval]
    """Held-out response loss before, after, and their paired change, the end key counted."""
    loss_without_end: tuple[Interval, Interval, Interval]
    by_category: dict[str, tuple[float, float]]
    about_roslin: tuple[float, float]
    """Held-out loss of the records about Roslin, which the base cannot know."""
    reworded: int
    """Questions that tuning never saw, whose answers it was taught under other questions."""
    recalled: int
    """Of those, how many greedy answers are the record's response word for word."""
    stopped: int
    """Of the judged prompts, how many answers ended at the end key by themselves."""
    shown: list[Shown]

    @property
    def stop_share(self) -> Interval:
        """Share of answers that ended by themselves."""
        return wilson_interval(self.stopped, self.judged)


@dataclass(frozen=True)
class Screen:
    """What the demo tells while it works."""

    step: Callable[[str, str], None]
    """A step begins: its title, and what it does in plain words."""
    note: Callable[[str], None]
    """A finding of the step."""
    tuning: Callable[[], Callbacks]
    """How tuning shows its progress."""


@dataclass(frozen=True)
class _Parts:
    train: list[Record]
    stopping: list[Record]
    judged: list[Record]
    reworded: list[Record]
    """Held out, but their responses are taught in answer to other words: they show recall, and judge nothing else."""


@enough_memory()
def demo(folder: Path, screen: Screen) -> Result:
    """Run what is left to do in `folder` and return the result.

    What another Roslin, other records or another recipe left there is told and done anew. Raises what its steps raise,
    Interrupted among them; InputError for a folder that is not the demo's; MachineError.
    """
    state(folder)  # before anything is made in a folder that is somebody else's
    make_folder(folder)
    with alone_in(folder):
        _claim(folder, screen)
        return load_result(folder) or _run(folder, screen)


def _run(folder: Path, screen: Screen) -> Result:
    started = time.monotonic()
    earlier = stored(folder / "clock.json", lambda: {"seconds": 0.0})["seconds"]
    try:
        parts = _check_and_split(folder, screen)
        before = _before(folder, parts, screen)
        tuned = _tune(folder, parts, before, screen)
        after = _after(folder, parts, screen)
    finally:
        write_json(folder / "clock.json", {"seconds": earlier + time.monotonic() - started})
    result = _result(parts, before, tuned, after, earlier + time.monotonic() - started)
    write_json(folder / "result.json", asdict(result))
    return result


def _claim(folder: Path, screen: Screen) -> None:
    if state(folder) == "outdated":
        screen.note(f"{folder} holds the demo of another Roslin, or of other records or settings: starting over.")
        clear(folder)
    claim(folder, _fingerprint())


def state(folder: Path) -> State:
    """Whether a demo was begun in `folder`, and whether it is this one's. Raises InputError when it is not a demo's."""
    return state_of(folder, _fingerprint())


def _fingerprint() -> Fingerprint:
    recipe = demo_recipe(Path())  # of no folder, so that a demo may be moved
    return {
        "roslin": roslin.__version__,
        "records": hashlib.sha256(STARTER_RECORDS.read_bytes()).hexdigest(),
        "recipe": hashlib.sha256(recipe.model_dump_json().encode()).hexdigest(),
    }


def load_result(folder: Path) -> Result | None:
    """The result of a demo that was finished in `folder`, if there is one."""
    values = read_json(folder / "result.json")
    if values is None or not (folder / "model").is_dir():
        return None
    try:
        intervals = {key: tuple(Interval(**i) for i in values[key]) for key in ("loss", "loss_without_end")}
        others = {
            "by_category": {name: tuple(losses) for name, losses in values["by_category"].items()},
            "about_roslin": tuple(values["about_roslin"]),
            "shown": [Shown(**shown) for shown in values["shown"]],
        }
        return Result(**values | intervals | others)
    except (AttributeError, KeyError, TypeError):
        return None


def start_over(folder: Path) -> None:
    """Remove what an earlier demo left. Raises InputError when the folder is not a demo's."""
    if state(folder) != "new":
        make_folder(folder)
        with alone_in(folder):
            clear(folder)


def demo_recipe(folder: Path) -> Recipe:
    """What the demo's tuning is told. Found by trial on the starter records; see docs/log.md."""
    return Recipe(
        model="base",
        records=[str(folder / "records" / "train.jsonl")],
        held_out=HeldOut(file=str(folder / "records" / "stopping.jsonl")),
        output=folder / "run",
        epochs=1.5,
        records_per_update=12,
        learning_rate=2e-4,
        new_keys_rate=30,
        schedule="linear",
        warmup_updates=10,
        evaluate_every=15,
        patience=2,
        checkpoint_every=30,
        samples=[],
        tensorboard=False,
    )


def _check_and_split(folder: Path, screen: Screen) -> _Parts:
    screen.step("Records", "Every record is checked before anything else; then some are held out.")
    found = records.load([STARTER_RECORDS], keys=prompt.FORBIDDEN_IN_RECORDS)
    rest, judged = records.split_by_hash(found, JUDGED_SHARE)
    train, stopping = records.split_by_hash(rest, STOPPING_SHARE, salt="stopping")
    taught = {record.response for record in train}
    reworded = [record for record in judged + stopping if record.response in taught]
    judged, stopping = ([record for record in part if record.response not in taught] for part in (judged, stopping))
    about = [record for record in train if is_about_roslin(record)]
    with writing(folder / "records"):
        (folder / "records").mkdir(exist_ok=True)
        for name, part in (
            ("train", train + about * (TIMES_ABOUT_ROSLIN - 1)),
            ("stopping", stopping),
            ("judged", judged),
            ("reworded", reworded),
        ):
            records.write_jsonl(part, folder / "records" / f"{name}.jsonl")
    screen.note(
        f"{len(found)} starter records, all sound: {len(train)} to tune on, {len(stopping)} to say when to stop, and "
        f"{len(judged)} that only judge the result. {len(reworded)} more ask in other words what the first ones teach. "
        f"The {len(about)} to tune on that are about Roslin itself are shown {TIMES_ABOUT_ROSLIN} times an epoch."
    )
    return _Parts(train, stopping, judged, reworded)


def _before(folder: Path, parts: _Parts, screen: Screen) -> dict[str, Any]:
    screen.step(
        "Before", "The base model has read books and encyclopedias. It continues text; it follows no instruction."
    )

    def ask_and_score() -> dict[str, Any]:
        answers = _answers(Roslin.load("base", prompt="dolly"), _shown_records(parts))
        return {"answers": answers, "loss": asdict(_judge(find_model("base"), parts.judged))}

    before = stored(folder / "before.json", ask_and_score)
    screen.note(f"Held-out response loss {HeldOutLoss(**before['loss']).loss:.3f} nats a token.")
    return before


def _tune(folder: Path, parts: _Parts, before: dict[str, Any], screen: Screen) -> dict[str, Any]:
    screen.step("Tuning", "All weights are tuned, until the loss on the stopping records no longer falls.")
    recipe = demo_recipe(folder)

    def tune_and_save() -> dict[str, Any]:
        prepared = prepare(recipe)
        make_folder(recipe.output)
        with alone_in(recipe.output):
            tuned = fit(recipe, prepared, screen.tuning())

        def card(partial: Path) -> None:
            sha256 = hashlib.sha256((folder / "records" / "train.jsonl").read_bytes()).hexdigest()
            source = source_evidence("train.jsonl", sha256, STARTER_LICENCE)
            check, base = check_records(recipe), fingerprint(find_model("base"))
            evidence = tuning_evidence(
                recipe,
                tuned,
                Gathered(parts.train, len(prepared.dropped), [source], check=check, base_fingerprint=base),
                name=folder.resolve().name,
                before=HeldOutLoss(**before["loss"]),
                after=_judge(partial, parts.judged),
                chosen_on=f"Other records ({len(parts.stopping)} of them) decided when tuning stopped.",
            )
            write_first_card(partial, of_folder(evidence, partial))

        write_model_folder(
            folder / "model",
            tuned.decoder,
            prepared.tokenizer,
            dtype=prepared.stored_dtype,
            base=find_model("base"),
            finish=card,
        )
        return _figures(recipe, tuned)

    if not (folder / "model").is_dir():
        (folder / "tuned.json").unlink(missing_ok=True)  # somebody took the model away
    tuned = stored(folder / "tuned.json", tune_and_save)
    screen.note(
        f"{tuned['updates']} of {tuned['updates_in_all']} updates gave the best weights; {tuned['tokens']:,} tokens in "
        f"{tuned['seconds']:.0f} s of stepping."
    )
    return tuned


def _after(folder: Path, parts: _Parts, screen: Screen) -> dict[str, Any]:
    screen.step("After", f"The saved model answers the same questions, and all {len(parts.judged)} judged ones.")

    def ask_and_score() -> dict[str, Any]:
        model = Roslin.load(str(folder / "model"))
        everything = model.answer_all(parts.judged, max_new_tokens=JUDGED_TOKENS, seed=SEED)
        return {
            "answers": _answers(model, _shown_records(parts)),
            "loss": asdict(_judge(folder / "model", parts.judged)),
            "stopped": sum(answer.finish_reason == "stop" for answer in everything),
            "recalled": sum(
                answer == record.response
                for answer, record in zip(_answers(model, parts.reworded), parts.reworded, strict=True)
            ),
        }

    return stored(folder / "after.json", ask_and_score)


def _result(
    parts: _Parts, before: dict[str, Any], tuned: dict[str, Any], after: dict[str, Any], seconds: float
) -> Result:
    was, now = HeldOutLoss(**before["loss"]), HeldOutLoss(**after["loss"])
    whole, without = compare(was, now, with_end=True), compare(was, now, with_end=False)
    about = [i for i, record in enumerate(parts.judged) if is_about_roslin(record)]
    was_by, now_by = was.by_category(), now.by_category()
    shown = [
        Shown(record.instruction, record.context, is_about_roslin(record), old, new)
        for record, old, new in zip(_shown_records(parts), before["answers"], after["answers"], strict=True)
    ]
    return Result(
        parameters=tuned["parameters"],
        train=len(parts.train),
        stopping=len(parts.stopping),
        judged=len(parts.judged),
        updates=tuned["updates"],
        updates_in_all=tuned["updates_in_all"],
        epochs=tuned["epochs"],
        tokens=tuned["tokens"],
        tuning_seconds=tuned["seconds"],
        seconds=seconds,
        loss=(whole.before, whole.after, whole.change),
        loss_without_end=(without.before, without.after, without.change),
        by_category={category: (was_by[category], now_by[category]) for category in now_by},
        about_roslin=(was.part(about).loss, now.part(about).loss),
        reworded=len(parts.reworded),
        recalled=after["recalled"],
        stopped=after["stopped"],
        shown=shown,
    )


def is_about_roslin(record: Record) -> bool:
    """Whether a starter record is about Roslin itself."""
    return "roslin" in f"{record.instruction} {record.response}".lower()


def _shown_records(parts: _Parts) -> list[Record]:
    """The shortest question of each of four categories, and the three shortest that tuning knows in other words."""
    short = sorted((r for r in parts.judged if len(r.context) < 400), key=_length)
    wanted = ("open_qa", "brainstorming", "creative_writing", "closed_qa")
    general = [r for r in short if not is_about_roslin(r)]
    firsts = [next((r for r in general if r.category == category), None) for category in wanted]
    return [r for r in firsts if r] + sorted(parts.reworded, key=_length)[:3]


def _length(record: Record) -> int:
    return len(record.instruction) + len(record.context)


def _answers(model: Roslin, shown: Sequence[Record]) -> list[str]:
    """The most probable answers: what a model says by itself shows better without the dice of sampling."""
    return [answer.text for answer in model.answer_all(shown, max_new_tokens=SHOWN_TOKENS, greedy=True)]


def _judge(model: Path, judged: Sequence[Record]) -> HeldOutLoss:
    """Loss of the judged records under a model folder, its keys in place, computed in fp32."""
    tokenizer = Tokenizer.load(model)
    decoder = load_decoder(model, dtype=torch.float32)
    new_ids = tokenizer.add_keys()
    fit_vocabulary(decoder, tokenizer.size, new_ids, "mean")
    return HeldOutSet(tokenizer.examples(judged), [r.category for r in judged], 2048).measure(decoder)


def _figures(recipe: Recipe, tuned: Tuned) -> dict[str, Any]:
    return {
        "parameters": sum(p.numel() for p in tuned.decoder.parameters()),
        "updates": tuned.updates,
        "updates_in_all": tuned.updates_in_all,
        "epochs": tuned.updates / tuned.updates_in_all * recipe.epochs,
        "tokens": tuned.tokens,
        "seconds": tuned.seconds,
    }
