"""`roslin eval MODEL --records`, `--ifeval`: a model judged by held-out records and by instructions with checks."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roslin.cli.ask import load
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
from roslin.errors import UsageError

if TYPE_CHECKING:
    from roslin.evaluate.ifeval import CheckedPrompt, IfevalReport
    from roslin.evaluate.responses import ResponseReport
    from roslin.records import Record

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


@dataclass(frozen=True)
class Found:
    """What one model made of the records and of the prompts, where they were given."""

    responses: "ResponseReport | None"
    ifeval: "IfevalReport | None"


def eval_records(model: str, options: RecordsOptions) -> None:
    """Judge a model, and the one it is held against, by records, by checked instructions, or by both.

    Raises InputError for records or prompts with faults, UsageError for settings that mean nothing, and MachineError
    where a model's numbers are none.
    """
    from roslin.evaluate.ifeval import load_prompts
    from roslin.model import find_model
    from roslin.records import load as load_records

    if options.samples and not options.records:
        raise UsageError("--samples is a page of answers to records: give --records too.")
    if options.samples and (options.samples.is_dir() or not options.samples.parent.is_dir()):
        raise UsageError(f"--samples {options.samples} is no file in a folder that is there: name another, x.html say.")
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
        write_samples(reports, options.samples, count=SHOWN_SAMPLES, seed=options.seed)
        progress_console().print(f"Wrote {options.samples}", markup=False)


def _judge(
    name: str,
    records: "Sequence[Record]",
    prompts: "Sequence[CheckedPrompt]",
    options: RecordsOptions,
) -> Found:
    """One model loaded, judged, and let go before the next one."""
    from roslin.evaluate.ifeval import AS_PUBLISHED, judge_ifeval
    from roslin.evaluate.responses import Drawing, judge_responses

    console = progress_console()
    drawing = Drawing(seed=options.seed, greedy=options.greedy)
    published = AS_PUBLISHED
    if options.max_new_tokens:
        drawing = replace(drawing, max_new_tokens=options.max_new_tokens)
        published = replace(published, max_new_tokens=options.max_new_tokens)
    with console.status(f"{name}: loading"):
        model = load(name, options.dtype, options.device, "auto", _revision(name, options))
    responses, ifeval = None, None
    with response_progress(console, name) as tell:
        if records:
            responses = judge_responses(model, records, name=name, drawing=drawing, progress=tell)
        if prompts:
            source = "Roslin's own" if options.ifeval == OWN_PROMPTS else str(options.ifeval)
            ifeval = judge_ifeval(model, prompts, name=name, source=source, drawing=published, progress=tell)
    del model
    gc.collect()
    return Found(responses, ifeval)


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
    return {name: report.as_dict() for name, report in parts.items() if report}


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
