"""`roslin eval`: a model judged by benchmarks, by held-out records, or by probes of its limits."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from roslin.cli.table import USUAL_STORE
from roslin.errors import UsageError

Profile = Literal["raw", "instruct"]
Job = Literal["benchmarks", "records", "limits"]
CHOSEN_BY: dict[Job, str] = {
    "benchmarks": "neither --records, --ifeval nor --limits was given",
    "records": "--records or --ifeval was given",
    "limits": "--limits was given",
}

LARGEST_SEED = 2**63 - 1

BENCHMARKS = "Benchmarks (what is done if nothing else is asked for)"
RECORDS = "Held-out records, and instructions that can be checked"
LIMITS = "Limits"

_benchmarks = partial(typer.Option, rich_help_panel=BENCHMARKS)
_records = partial(typer.Option, rich_help_panel=RECORDS)
_limits = partial(typer.Option, rich_help_panel=LIMITS)

ONLY_FOR: dict[str, tuple[Job, ...]] = {
    **dict.fromkeys(
        ("tasks", "data", "profile", "shots", "limit", "hf", "name", "dtype", "store", "trained_on"), ("benchmarks",)
    ),
    **dict.fromkeys(("records", "ifeval", "against", "samples", "greedy", "max_new_tokens"), ("records",)),
    **dict.fromkeys(("limits", "per_family"), ("limits",)),
    "dtype": ("benchmarks", "records"),
    "seed": ("records", "limits"),
}
"""Which of the three works an option belongs to; those that are not here belong to all."""


def eval_(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A model: a folder, an adapter, a file, base, smollm2, or a hub name.")],
    tasks: Annotated[
        list[str] | None,
        _benchmarks("--tasks", help="Which tasks, with commas; else all seven."),
    ] = None,
    data: Annotated[
        Path | None,
        _benchmarks(metavar="FOLDER", help="Where their files are, instead of the hub."),
    ] = None,
    profile: Annotated[
        Profile,
        _benchmarks(help="raw: as in the published table; instruct: in the model's own prompt."),
    ] = "raw",
    shots: Annotated[int, _benchmarks(min=0, help="Examples before each question.")] = 0,
    limit: Annotated[int | None, _benchmarks(min=1, help="Only the first so many questions of a task.")] = None,
    hf: Annotated[
        bool,
        _benchmarks("--hf", help="Have transformers run the model: any decoder that it loads."),
    ] = False,
    name: Annotated[str | None, _benchmarks(help="What the model is called in tables.")] = None,
    store: Annotated[Path, _benchmarks(metavar="FILE", help="Where results are kept.")] = USUAL_STORE,
    trained_on: Annotated[
        list[str] | None,
        _benchmarks(metavar="RECORDS", help="What the model was tuned on: which questions does it touch?"),
    ] = None,
    records: Annotated[
        list[str] | None,
        _records(metavar="RECORDS", help="Judge the model by held-out records, by category."),
    ] = None,
    ifeval: Annotated[
        str | None,
        _records(metavar="PROMPTS", help="IFEval's checks: `own` (Roslin's prompts), a file, or google/IFEval."),
    ] = None,
    against: Annotated[
        str | None,
        _records(metavar="MODEL", help="The same of another model (its base, say), and what differs."),
    ] = None,
    samples: Annotated[
        Path | None,
        _records(metavar="HTML", help="Write a page of answers that the seed picks."),
    ] = None,
    greedy: Annotated[bool, _records("--greedy", help="The most probable answers.")] = False,
    max_new_tokens: Annotated[
        int | None, _records(min=1, help="Longest answer; 256 if not given, 1,280 for IFEval.")
    ] = None,
    limits: Annotated[bool, _limits("--limits", help="Probe the limitations that Dolly's card names.")] = False,
    per_family: Annotated[int, _limits(min=1, help="Probes of each limitation.")] = 24,
    card: Annotated[
        bool, typer.Option("--card", help="Keep what was found in the model's folder: roslin.json, and its card.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of answers, samples and probes.")] = 0,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")] = "auto",
    revision: Annotated[str | None, typer.Option(help="Version on the hub.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Judge a model: by the seven benchmarks of Dolly's card, by held-out records, or by probes of its limits.

    Benchmarks are asked as the LM Evaluation Harness asks them. Every score is kept: a run that was stopped goes on
    where it was, and `roslin table` prints all runs beside the published rows.
    """
    job: Job = "limits" if limits else "records" if records or ifeval is not None else "benchmarks"
    _check_options(context, job)
    if job == "limits":
        from roslin.cli.eval_limits import LimitsOptions, eval_limits

        eval_limits(model, LimitsOptions(seed, per_family, device, revision, as_json, card))
    elif job == "records":
        from roslin.cli.eval_records import RecordsOptions, eval_records

        eval_records(
            model,
            RecordsOptions(
                records=records or [],
                ifeval=ifeval,
                against=against,
                samples=samples,
                seed=seed,
                greedy=greedy,
                max_new_tokens=max_new_tokens,
                dtype=dtype,
                device=device,
                revision=revision,
                as_json=as_json,
                card=card,
            ),
        )
    else:
        from roslin.cli.eval_benchmarks import BenchmarkOptions, eval_benchmarks

        eval_benchmarks(
            model,
            BenchmarkOptions(
                tasks=_task_names(tasks or []),
                data=data,
                profile=profile,
                shots=shots,
                limit=limit,
                transformers=hf,
                name=name,
                dtype=dtype,
                device=device,
                revision=revision,
                store=store,
                trained_on=trained_on or [],
                as_json=as_json,
                card=card,
            ),
        )


def _task_names(tasks: list[str]) -> list[str]:
    """The names in `--tasks`. Raises UsageError where it was given without any: all seven would be another wish."""
    names = [name for words in tasks for word in words.split(",") if (name := word.strip())]
    if tasks and not names:
        raise UsageError("--tasks names no task. Leave it out for all seven.")
    return names


def _check_options(context: typer.Context, job: Job) -> None:
    """Raise UsageError for options that were given and mean nothing to this work."""
    given = [name for name in ONLY_FOR if _was_given(context, name)]
    foreign = [name for name in given if job not in ONLY_FOR[name]]
    if foreign:
        told = "\n".join(f"  --{name.replace('_', '-')} is for {' and '.join(ONLY_FOR[name])}" for name in foreign)
        raise UsageError(
            f"This run is of {job}, as {CHOSEN_BY[job]}, and benchmarks, records and limits run one at a time:\n{told}"
        )


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
