"""`roslin eval MODEL --records`, `--ifeval`: a model judged by held-out records and by instructions with checks."""

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roslin.cli.ask import load
from roslin.cli.eval_card import fingerprint_of, require_card_of, say_written
from roslin.cli.eval_responses import (
    print_json,
    response_progress,
    show_comparison,
    show_ifeval,
    show_ifeval_comparison,
    show_responses,
    write_samples,
)
from roslin.cli.screen import progress_console, result_console
from roslin.errors import InputError, MachineError, UsageError

if TYPE_CHECKING:
    from roslin.evaluate.ifeval import CheckedPrompt, IfevalReport
    from roslin.evaluate.responses import Drawing, ResponseReport
    from roslin.records import Record

Failure = InputError | MachineError

OWN_PROMPTS = "own"
"""What --ifeval calls the prompts that ship with Roslin."""
SHOWN_SAMPLES = 50


@dataclass(frozen=True)
class RecordsOptions:
    """What the command was asked for."""

    records: Sequence[str]
    ifeval: str | None
    against: str | None
    samples: Path | None
    seed: int
    greedy: bool
    max_new_tokens: int | None
    """None leaves it at what is usual: 256 for records, as in Dolly, and 1,280 for IFEval."""
    dtype: str
    device: str
    revision: str | None
    as_json: bool
    card: bool
    """Whether to write what was found into the card of the model's folder."""


@dataclass(frozen=True)
class Found:
    """What one model made of the records and of the prompts, where they were given."""

    name: str
    responses: "ResponseReport | None" = None
    ifeval: "IfevalReport | None" = None
    failures: "Mapping[str, Failure]" = field(default_factory=dict)
    """What went wrong, by what was tried."""


def eval_records(model: str, options: RecordsOptions) -> None:
    """Judge a model, and the one it is held against, by records, by checked instructions, or by both.

    Raises InputError for records or prompts with faults and UsageError for settings that mean nothing, before any work;
    and, after what was found all the same, InputError or MachineError for what failed.
    """
    from roslin.evaluate.ifeval import load_prompts
    from roslin.model import find_model
    from roslin.records import load as load_records

    if options.samples and not options.records:
        raise UsageError("--samples is a page of answers to records: give --records too.")
    if options.samples and (options.samples.is_dir() or not options.samples.parent.is_dir()):
        raise UsageError(f"--samples {options.samples} is no file in a folder that is there: name another, x.html say.")
    if options.card:
        require_card_of(model, "responses")
    records = load_records(options.records) if options.records else []
    source = None if options.ifeval == OWN_PROMPTS else options.ifeval
    prompts = load_prompts(source) if options.ifeval is not None else []
    names = [options.against, model] if options.against else [model]
    for name in names:  # before the first of them is put to work
        find_model(name, _revision(name, options))
    found = [_judge(name, records, prompts, options) for name in names]
    if options.as_json:
        print_json(as_object(found))
    else:
        _show(found)
    if options.samples:
        reports = [each.responses for each in found if each.responses]
        if reports:
            write_samples(reports, options.samples, count=SHOWN_SAMPLES, seed=options.seed)
            progress_console().print(f"Wrote {options.samples}", markup=False)
    if options.card:
        _record(model, found, options.seed)
    _raise_failures(found)


def _record(model: str, found: Sequence[Found], seed: int) -> None:
    """Keep what a card says of this beside the model, and put it into the card."""
    from roslin.publish.card import record_responses
    from roslin.publish.evidence import FollowedEvidence, ResponsesEvidence

    *others, own = found
    if not (own.responses or own.ifeval):
        return
    weights = fingerprint_of(model)
    base = others[0].responses if others else None
    responses = ResponsesEvidence.of(own.responses, base, fingerprint=weights, seed=seed) if own.responses else None
    followed = FollowedEvidence.of(own.ifeval, fingerprint=weights) if own.ifeval else None
    say_written(record_responses(Path(model).expanduser(), responses, followed))


def _judge(
    name: str,
    records: "Sequence[Record]",
    prompts: "Sequence[CheckedPrompt]",
    options: RecordsOptions,
) -> Found:
    """One model loaded, judged, and let go before the next one; one part that fails does not lose the other."""
    from roslin.evaluate.ifeval import judge_ifeval
    from roslin.evaluate.responses import judge_responses

    console = progress_console()
    drawing, published = _drawings(options)
    failures: dict[str, Failure] = {}
    responses, ifeval = None, None
    with _failing_into(failures, "loading"), console.status(f"{name}: loading"):
        model = load(name, options.dtype, options.device, "auto", _revision(name, options))
    if failures:
        return Found(name, failures=failures)
    with response_progress(console, name) as tell:
        if records:
            with _failing_into(failures, "records"):
                responses = judge_responses(model, records, name=name, drawing=drawing, progress=tell)
        if prompts:
            source = "Roslin's own" if options.ifeval == OWN_PROMPTS else str(options.ifeval)
            with _failing_into(failures, "checked instructions"):
                ifeval = judge_ifeval(model, prompts, name=name, source=source, drawing=published, progress=tell)
    del model
    gc.collect()
    return Found(name, responses, ifeval, failures)


def _drawings(options: RecordsOptions) -> "tuple[Drawing, Drawing]":
    """How answers to records are drawn, and those to instructions with checks."""
    from roslin.evaluate.ifeval import AS_PUBLISHED
    from roslin.evaluate.responses import Drawing

    drawing = Drawing(seed=options.seed, greedy=options.greedy)
    if not options.max_new_tokens:
        return drawing, AS_PUBLISHED
    longest = options.max_new_tokens
    return replace(drawing, max_new_tokens=longest), replace(AS_PUBLISHED, max_new_tokens=longest)


@contextmanager
def _failing_into(failures: "dict[str, Failure]", tried: str) -> Iterator[None]:
    try:
        yield
    except (InputError, MachineError) as error:
        failures[tried] = error


def _raise_failures(found: Sequence[Found]) -> None:
    """Raise one error for all that failed; a MachineError where none was the input's fault."""
    failed = [(each.name, tried, error) for each in found for tried, error in each.failures.items()]
    if not failed:
        return
    kind = InputError if any(isinstance(error, InputError) for *_, error in failed) else MachineError
    raise kind("\n".join(f"{name}, {tried}: {error}" for name, tried, error in failed))


def _revision(name: str, options: RecordsOptions) -> str | None:
    """The revision asked for is that of the model judged, not of the one it is held against."""
    return None if name == options.against else options.revision


def as_object(found: Sequence[Found]) -> dict[str, Any]:
    """All that was found, for JSON: of the model, of the one it is held against, and how they differ."""
    *_, mine = found
    values: dict[str, Any] = {"model": _one(mine)}
    if len(found) == 1:
        return values
    values["against"] = _one(found[0])
    values["change"] = {name: each.as_dict() for name, each in _comparisons(*found).items()}
    return values


def _one(found: Found) -> dict[str, Any]:
    parts = {"responses": found.responses, "ifeval": found.ifeval}
    failures = {tried: str(error) for tried, error in found.failures.items()}
    reports = {name: report.as_dict() for name, report in parts.items() if report}
    return {"name": found.name, **reports, **({"failures": failures} if failures else {})}


def _comparisons(before: Found, after: Found) -> dict[str, Any]:
    from roslin.evaluate.ifeval import compare_ifeval
    from roslin.evaluate.responses import compare_responses

    compared: dict[str, Any] = {}
    if before.responses and after.responses:
        compared["responses"] = compare_responses(before.responses, after.responses)
    if before.ifeval and after.ifeval:
        compared["ifeval"] = compare_ifeval(before.ifeval, after.ifeval)
    return compared


def _show(found: Sequence[Found]) -> None:
    console = result_console()
    for each in found:
        if each.responses:
            show_responses(each.responses, console)
        if each.ifeval:
            show_ifeval(each.ifeval, console)
    if len(found) == 1:
        return
    compared = _comparisons(*found)
    if "responses" in compared:
        show_comparison(compared["responses"], console)
    if "ifeval" in compared:
        show_ifeval_comparison(compared["ifeval"], console)
