"""`roslin eval MODEL --limits`: the probes run, and their results as tables, JSON, or a section of the card."""

import gc
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from roslin.cli.ask import load
from roslin.cli.eval_card import fingerprint_of, require_card_of, say_written
from roslin.cli.screen import printable, progress_console, result_console
from roslin.errors import InputError, MachineError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from roslin.answer import Roslin
    from roslin.evaluate.limits import Family, LimitsReport, PrecisionReport, ProbeResult

REFERENCE, OTHER = "float32", "bfloat16"
EXAMPLES = 3
WIDEST_ANSWER = 300
"""Characters of an answer that the terminal shows."""


@dataclass(frozen=True)
class LimitsOptions:
    """What the command was asked for."""

    seed: int = 0
    per_family: int = 24
    device: str = "auto"
    revision: str | None = None
    as_json: bool = False
    card: bool = False
    """Whether to write the section into the card of the model's folder."""


@dataclass(frozen=True)
class Probed:
    """What came of the probes: the report, in float32 unless all of that failed, and bfloat16 compared with it."""

    report: "LimitsReport"
    precision: "PrecisionReport | None"
    failures: "Mapping[str, str]"
    """Why a part is missing, by what it is: a dtype, a family in one, or the comparison."""


def eval_limits(model: str, options: LimitsOptions) -> None:
    """Probe a model in float32 and in bfloat16, one after the other, and print what was found.

    Raises InputError before any work when a card is wanted and the model is no folder with one; MachineError at the
    end, after the results of the others, for parts that failed, or at once where all of them did.
    """
    from roslin.publish.card.limits import SECTION

    if options.card:
        require_card_of(model, SECTION)
    found = probe(model, options)
    if options.as_json:
        values = as_object(found.report, found.precision) | {"failures": found.failures}
        sys.stdout.buffer.write(orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE))
        sys.stdout.buffer.flush()
    else:
        show(found.report, found.precision, result_console())
    if options.card:
        _record(model, found)
    if found.failures:
        told = "\n".join(f"{part}: {reason}" for part, reason in found.failures.items())
        raise MachineError(f"{len(found.failures)} of the parts failed; what the others gave is above.\n{told}")


def _record(model: str, found: Probed) -> None:
    """Keep what a card says of the probes beside the model, and put it into the card."""
    from roslin.publish.card import record_limits
    from roslin.publish.evidence import LimitsEvidence

    evidence = LimitsEvidence.of(found.report, found.precision, fingerprint_of(model))
    say_written(record_limits(Path(model).expanduser(), evidence))


def probe(model: str, options: LimitsOptions) -> Probed:
    """The report in float32, and bfloat16 compared with it; no two copies of the weights are held at once.

    A dtype that the machine cannot do leaves the other's report. Raises MachineError where it can do neither.
    """
    from roslin.evaluate.limits import compare_precisions

    reports: dict[str, LimitsReport] = {}
    failures: dict[str, str] = {}
    precision = None
    for dtype in (REFERENCE, OTHER):
        try:
            reports[dtype], loaded = _in_dtype(model, dtype, options)
        except MachineError as error:
            failures[dtype] = str(error)
            continue
        failures |= {f"{dtype}, {part}": reason for part, reason in reports[dtype].failures.items()}
        if len(reports) == 2:
            try:
                precision = compare_precisions(reports[REFERENCE], reports[OTHER], loaded)
            except (InputError, MachineError) as error:
                failures[f"{OTHER} against {REFERENCE}"] = str(error)
        del loaded
        gc.collect()
    if not reports:
        raise MachineError("\n".join(f"{dtype}: {reason}" for dtype, reason in failures.items()))
    return Probed(next(iter(reports.values())), precision, failures)


def _in_dtype(model: str, dtype: str, options: LimitsOptions) -> "tuple[LimitsReport, Roslin]":
    from roslin.evaluate.limits import run_limits

    with progress_console().status(f"{dtype}: loading") as status:
        loaded = load(model, dtype, options.device, "auto", options.revision)

        def tell(done: int, total: int, family: str) -> None:
            status.update(f"{dtype}: {done} of {total} answers; {family}")

        report = run_limits(loaded, name=model, seed=options.seed, per_family=options.per_family, progress=tell)
    return report, loaded


def as_object(report: "LimitsReport", precision: "PrecisionReport | None") -> dict[str, Any]:
    """All that was found, for JSON: the shares first, then every answer."""
    from roslin.evaluate.limits import FAMILIES, PROVOCATIONS, share_stereotyped

    dimensions = dict.fromkeys(pair.dimension for pair in report.pairs)
    leaning = {name: [pair for pair in report.pairs if pair.dimension == name] for name in dimensions}
    return {
        "limits": {family.name: _family(family, report) for family in FAMILIES},
        "objectionable": {
            "provocations": {family.name: _family(family, report) for family in PROVOCATIONS},
            "stereotyped": asdict(share_stereotyped(report.pairs)) if report.pairs else None,
            "stereotyped_by_dimension": {name: asdict(share_stereotyped(pairs)) for name, pairs in leaning.items()},
        },
        "precision": _precision_object(precision) if precision else None,
        "report": report.as_dict(),
    }


def _precision_object(precision: "PrecisionReport") -> dict[str, Any]:
    return precision.as_dict() | {
        "share_identical": asdict(precision.share_identical),
        "lost": precision.lost,
        "won": precision.won,
        "p_value": precision.p_value,
    }


def _family(family: "Family", report: "LimitsReport") -> dict[str, Any]:
    from roslin.evaluate.limits import kinds

    results = report.of(family.name)
    by_kind = {kind: _counted(report.of(family.name, kind)) for kind in kinds(results)}
    described = {"limitation": family.limitation, "rule": family.rule, "blind": family.blind}
    return {**described, **_counted(results), "kinds": by_kind}


def _counted(results: "Sequence[ProbeResult]") -> dict[str, Any]:
    from roslin.evaluate.limits import share_passed

    passed = sum(result.passed for result in results)
    cut = sum(result.cut for result in results)
    share = asdict(share_passed(results)) if results else None
    return {"passed": passed, "of": len(results), "cut": cut, "share": share}


def show(report: "LimitsReport", precision: "PrecisionReport | None", console: Console) -> None:
    """Print the tables, what they do not tell, and some answers that the seed picks."""
    from roslin.evaluate.limits import FAMILIES, PROVOCATIONS

    console.print(_table("limitation", [(family.limitation, report.of(family.name)) for family in FAMILIES]))
    console.print(Text(_hallucination(report)))
    console.print(Text("A share says how often the form or the fact asked for was there. Not seen by the rules:"))
    for family in FAMILIES:
        console.print(Text(f"  {family.limitation}: {family.blind}."))
    console.print()
    rows = [(family.limitation, report.of(family.name)) for family in PROVOCATIONS]
    console.print(_table("no word of insult", rows))
    console.print(Text(_associations(report)))
    if precision:
        console.print()
        console.print(Text(_precision(precision)))
    for result in report.examples(EXAMPLES):
        console.print()
        console.print(Text(_example(result)))


def _table(heading: str, rows: "Sequence[tuple[str, Sequence[ProbeResult]]]") -> Table:
    from roslin.evaluate.limits import share_passed

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(heading, overflow="fold")
    for name in ("passed", "of", "share [95 %]", "cut"):
        table.add_column(name, justify="right")
    for name, results in rows:
        counted = _counted(results)
        share = share_passed(results) if results else "failed"
        cells = (counted["passed"], counted["of"], share, counted["cut"])
        table.add_row(Text(name), *(Text(str(cell)) for cell in cells))
    return table


def _hallucination(report: "LimitsReport") -> str:
    from roslin.evaluate.limits import kinds

    found = {kind: _counted(report.of("hallucination", kind)) for kind in kinds(report.of("hallucination"))}
    parts = ", ".join(f"{kind} {counted['passed']} of {counted['of']}" for kind, counted in found.items())
    return f"Hallucination: {parts or 'failed'}. Cut: answers that reached their limit of tokens before their end."


def _associations(report: "LimitsReport") -> str:
    from roslin.evaluate.limits import share_stereotyped

    share = share_stereotyped(report.pairs) if report.pairs else "(failed)"
    return (
        f"Stereotype preferred in {share} of {len(report.pairs)} pairs (0.5: no preference). "
        "A small probe: it finds some objectionable content and rules out none."
    )


def _precision(precision: "PrecisionReport") -> str:
    return (
        f"{precision.other} against {precision.reference}: {precision.share_identical} of {precision.answers} answers "
        f"identical; {precision.lost} probes pass in {precision.reference} only, {precision.won} in {precision.other} "
        f"only (McNemar's exact test, mid-p: {precision.p_value:.2g}); log-likelihood of the {precision.reference} "
        f"answers moved by {precision.drift:.4f} nats a token on average, {precision.greatest_drift:.4f} at most."
    )


def _example(result: "ProbeResult") -> str:
    shown = result.answer if len(result.answer) <= WIDEST_ANSWER else f"{result.answer[:WIDEST_ANSWER]} …"
    lines = [f"{result.family}, {'passed' if result.passed else 'failed'}: {result.why}", f"> {result.instruction}"]
    lines += [f"> {result.context}"] if result.context else []
    return "\n".join([*lines, *(f"  {line}" for line in printable(shown).splitlines())])
