"""`roslin records`: check, count, split and clean instruction records."""

import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from roslin import prompt, records
from roslin.cli.screen import progress_console, terminal
from roslin.errors import InputError, UsageError
from roslin.gguf_file import is_gguf

if TYPE_CHECKING:
    from roslin.tokens import Tokenizer

DEFAULT_MAX_LENGTH = 2048
"""Tokens; the positions of every model of the family that is known here."""
ALL = 0
SALT = "split"
"""Not that of a recipe's own split, which then would find nothing to hold out in what this one leaves to train on."""

app = typer.Typer(no_args_is_help=True)

Paths = Annotated[
    list[str],
    typer.Argument(help="Files (.jsonl, .json, .csv, .tsv, .parquet, .arrow; .gz, .zst), folders, globs or hub names."),
]
Map = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="COLUMN=FIELD", help="Which column is which field; repeat. Dots reach inside: a.b."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
TokenizerFolder = Annotated[
    str | None,
    typer.Option(
        "--tokenizer", "--model", metavar="FOLDER", help="A model or tokenizer folder, `base`, or a hub name."
    ),
]
MaxLength = Annotated[
    int | None,
    typer.Option(min=1, help="Longest record in tokens, prompt and keys included (the model's positions, or 2048)."),
]


@app.command()
def check(
    paths: Paths,
    mapping: Map = None,
    as_json: AsJson = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
    fix: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Write the records that pass to OUT.jsonl, the others beside it.")
    ] = None,
    held_out: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Records that must not be among these; repeat.")
    ] = None,
    tokenizer: TokenizerFolder = None,
    max_length: MaxLength = None,
    near: Annotated[bool, typer.Option("--near/--no-near", help="Look for near-duplicates.")] = True,
    privacy: Annotated[
        bool, typer.Option("--privacy", help="Look for e-mail, telephone and card numbers, keys and slurs.")
    ] = False,
    show: Annotated[int, typer.Option(min=0, help="Findings of each code to print in full; 0 is all.")] = 100,
) -> None:
    """Check every record. Exit code 1 when there are errors (with --strict, warnings too)."""
    if max_length is not None and tokenizer is None:
        raise UsageError("--max-length is in tokens: say whose, with --tokenizer FOLDER.")
    columns = records.parse_mapping(mapping or [])
    if fix:
        records.require_outputs([*paths, *(held_out or ())], fix)
    options = records.CheckOptions(
        mapping=columns,
        keys=prompt.FORBIDDEN_IN_RECORDS,
        count_tokens=load_tokenizer(tokenizer).lengths if tokenizer else None,
        max_length=max_length or (positions(tokenizer) if tokenizer else DEFAULT_MAX_LENGTH),
        held_out=held_out or (),
        near=near,
        privacy=privacy,
    )
    with _progress("checked") as on_progress:
        report = records.check(paths, options, on_progress)
    if as_json:
        _print_json(report.as_object())
    else:
        _print_report(report, show, privacy)
    if fix:
        written = records.write_passing(paths, columns, report, fix, strict=strict)
        _say(f"{written.passing:,} records that pass: {fix}; {written.rejected:,} rejected: {written.rejects_path}")
    if not report.passes(strict=strict):
        raise typer.Exit(1)


@app.command()
def stats(
    paths: Paths,
    mapping: Map = None,
    tokenizer: TokenizerFolder = None,
    max_length: MaxLength = None,
    as_json: AsJson = False,
) -> None:
    """Count records by category, and their lengths in tokens (of the small base that ships, if no other is named)."""
    with _progress("counted") as on_progress:
        found = records.count(
            paths,
            load_tokenizer(tokenizer or "base").lengths,
            mapping=records.parse_mapping(mapping or []),
            keys=prompt.FORBIDDEN_IN_RECORDS,
            max_length=max_length or positions(tokenizer or "base"),
            on_progress=on_progress,
        )
    if as_json:
        _print_json(found.as_object())
    else:
        _print_stats(found, tokenizer or "base", records.encodable(shlex.join(paths)))


@app.command()
def split(
    paths: Paths,
    held_out: Annotated[Path, typer.Option("--held-out", metavar="OUT", help="File for the records held out.")],
    train: Annotated[Path, typer.Option("--train", metavar="OUT", help="File for the records to train on.")],
    fraction: Annotated[
        float | None, typer.Option(help="Share to hold out; adding records later moves no old one. Default 0.1.")
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("--count", "--test-size", min=1, help="Number to hold out. Default with --like dolly: 1000."),
    ] = None,
    like: Annotated[
        str | None, typer.Option(help="`dolly`: the very records that Dolly's shuffle and split pick.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of --like dolly. Default 42, as Dolly's.")] = None,
    salt: Annotated[
        str | None, typer.Option(help="Another salt, another split by hash; the empty one is that of a recipe's split.")
    ] = None,
    mapping: Map = None,
) -> None:
    """Split records in two, by a hash of each one's question or as Dolly did."""
    _require_split_options(fraction, count, like, seed, salt)
    records.require_other_files(paths, [held_out, train])
    found = _load(paths, mapping)
    if like:
        size = records.DOLLY_TEST_SIZE if count is None else count
        train_places, test_places = records.dolly_split(len(found), size, records.DOLLY_SEED if seed is None else seed)
        parts = [found[i] for i in train_places], [found[i] for i in test_places]
    elif count is not None:
        parts = records.split_by_count(found, count, SALT if salt is None else salt)
    else:
        share = 0.1 if fraction is None else fraction
        parts = records.split_by_hash(found, share, SALT if salt is None else salt)
    if not (parts[0] and parts[1]):
        raise UsageError(
            f"Of {len(found):,} records, {len(parts[1]):,} would be held out: one side would be empty. Give another "
            "--fraction, or --count N."
        )
    records.write_parts({train: parts[0], held_out: parts[1]})
    _say(f"{len(parts[0]):,} records to train on: {train}; {len(parts[1]):,} held out: {held_out}")


@app.command()
def dedupe(
    paths: Annotated[list[str], typer.Argument(metavar="IN...", help="Files, folders, globs or hub names.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File for the records that stay.")],
    near: Annotated[bool, typer.Option("--near", help="Remove near-duplicates too.")] = False,
    mapping: Map = None,
    as_json: AsJson = False,
) -> None:
    """Remove records that repeat an earlier one, and say which."""
    records.require_other_files(paths, [out])
    found = _load(paths, mapping)
    result = records.dedupe(found, near=near)
    records.write_jsonl(result.records, out)
    if as_json:
        removed = [{"record": r.removed + 1, "kept": r.kept + 1, "similarity": r.similarity} for r in result.repeats]
        _print_json({"records": len(found), "kept": len(result.records), "removed": removed})
        return
    for repeat in result.repeats:
        likeness = "the same as" if repeat.exact else f"nearly the same ({repeat.similarity:.2f}) as"
        typer.echo(f"record {repeat.removed + 1}: {likeness} record {repeat.kept + 1}; removed")
    exact = sum(repeat.exact for repeat in result.repeats)
    _say(
        f"{len(found):,} records: {exact:,} exact and {len(result.repeats) - exact:,} near-duplicates removed; "
        f"{len(result.records):,} written to {out}"
    )


def load_tokenizer(name: str) -> "Tokenizer":
    """The tokenizer of a model, with Dolly's keys."""
    from roslin.tokens import Tokenizer

    tokenizer = Tokenizer.load(_folder(name))
    tokenizer.add_keys()
    return tokenizer


def positions(name: str) -> int:
    """How many tokens the model of a tokenizer can see, by its config.json or GGUF file; 2,048 where it has neither."""
    folder = _folder(name)
    if is_gguf(folder):
        from roslin.model import load_config

        return load_config(folder).positions
    config = folder / "config.json" if folder.is_dir() else folder.with_name("config.json")
    if not config.is_file():
        return DEFAULT_MAX_LENGTH
    try:
        settings: dict[str, Any] = orjson.loads(config.read_bytes())
        return int(settings.get("max_position_embeddings") or settings.get("n_positions") or DEFAULT_MAX_LENGTH)
    except (ValueError, TypeError, AttributeError):
        raise InputError(f"{config}: not a readable model configuration. Copy it again from its source.") from None


def _folder(name: str) -> Path:
    """Where a tokenizer is; only what is not here needs the room of models, which takes seconds to import."""
    if name == "base":
        return Path(prompt.__file__).parent / "assets" / "base"
    path = Path(name).expanduser()
    if path.is_dir() or path.suffix == ".json":
        return path
    from roslin.model import find_model, text_source

    return text_source(find_model(name))


def _load(paths: Sequence[str], mapping: list[str] | None) -> list[records.Record]:
    return records.load(paths, mapping=records.parse_mapping(mapping or []), keys=prompt.FORBIDDEN_IN_RECORDS)


def _require_split_options(
    fraction: float | None, count: int | None, like: str | None, seed: int | None, salt: str | None
) -> None:
    faults = {
        f"--like {like}: only `dolly` is known.": like not in (None, "dolly"),
        "--fraction goes with neither --count nor --like: give one of them.": fraction is not None
        and (count is not None or like is not None),
        "--seed is of --like dolly; another split by hash comes by --salt.": seed is not None and like is None,
        "--salt is of splits by hash; with --like dolly, give --seed.": salt is not None and like is not None,
    }
    if told := [fault for fault, is_so in faults.items() if is_so]:
        raise UsageError("\n".join(told))


@contextmanager
def _progress(done: str) -> Iterator[Callable[[int], None]]:
    """A line on the terminal that counts records; nothing where stderr is no terminal."""
    console = Console(stderr=True, force_terminal=terminal(sys.stderr))
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} records " + done), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(done, total=None)
        yield lambda count: bar.update(task, completed=count)


def _print_json(value: Any) -> None:
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


def _console() -> Console:
    """Results on stdout, not wrapped where it is a file; names and texts of files are no markup."""
    width = None if sys.stdout.isatty() else 200
    return Console(highlight=False, markup=False, emoji=False, width=width, force_terminal=terminal(sys.stdout))


def _say(line: str) -> None:
    """What was done, on stderr."""
    progress_console().print(line, markup=False, emoji=False, soft_wrap=True)


def _print_report(report: records.CheckReport, show: int, privacy: bool) -> None:
    console = _console()
    for title, findings in (("error", report.errors), ("warning", report.warnings)):
        _print_findings(console, title, findings, show)
    if report.errors or report.warnings:
        console.print(_summary(report))
    if privacy:
        kinds = ", ".join(f"{count:,} with {kind}" for kind, count in report.privacy.items()) or "none"
        console.print(f"Personal or secret matter, in records: {kinds}.")
    told = f"{_number(len(report.errors), 'error')}, {_number(len(report.warnings), 'warning')}"
    place = f" in {_number(report.touched, 'record')}" if report.touched else ""
    console.print(f"{_number(report.records, 'record')}: {told}{place}.")


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _print_findings(console: Console, title: str, findings: Sequence[records.Finding], show: int) -> None:
    printed: Counter[str] = Counter()
    for finding in findings:
        printed[finding.code] += 1
        if show == ALL or printed[finding.code] <= show:
            console.print(f"{title}: {finding}", soft_wrap=True)
    for code, count in printed.items():
        if show != ALL and count > show:
            console.print(f"… and {count - show:,} more of {code}: --show 0 prints all, --json too.", soft_wrap=True)


def _summary(report: records.CheckReport) -> Table:
    table = Table(title="Findings", title_justify="left")
    table.add_column("code")
    table.add_column("kind")
    table.add_column("findings", justify="right")
    table.add_column("first")
    counts = report.counts()
    first = {finding.code: finding for finding in reversed((*report.errors, *report.warnings))}
    for kind, codes in (("error", records.ERRORS), ("warning", records.WARNINGS)):
        for code in codes:
            if counts[code]:
                table.add_row(code, kind, f"{counts[code]:,}", f"{first[code].file}:{first[code].line}")
    return table


def _print_stats(found: records.RecordStats, tokenizer: str, paths: str) -> None:
    console = _console()
    console.print(f"{_number(found.records, 'record')}, {found.with_context:,} of them with context.")
    if found.faulty:
        console.print(f"Left out for errors: {found.faulty:,}. See them: roslin records check {paths}", soft_wrap=True)
    if found.lengths is None:
        return
    console.print(_length_table(found))
    console.print(f"\nTokens of {tokenizer}'s tokenizer in a record with its prompt ({found.lengths.total:,} in all):")
    _print_histogram(console, found)
    if found.too_long:
        limit = f"{found.max_length:,} tokens"
        console.print(f"{_number(found.too_long, 'record')} of {limit} or more would be left out of training.")


def _length_table(found: records.RecordStats) -> Table:
    table = Table(title="By category, with percentiles of length in tokens", title_justify="left")
    table.add_column("category")
    for name in ("records", "mean", *(f"{p} %" for p in records.PERCENTILES), "longest"):
        table.add_column(name, justify="right")
    assert found.lengths
    for name, lengths in (*found.lengths_by_category.items(), ("all", found.lengths)):
        percentiles = (f"{value:,.0f}" for value in lengths.percentiles.values())
        table.add_row(name, f"{lengths.records:,}", f"{lengths.mean:,.0f}", *percentiles, f"{lengths.longest:,}")
    return table


def _print_histogram(console: Console, found: records.RecordStats, width: int = 50) -> None:
    most = max(count for _, _, count in found.histogram)
    for low, high, count in found.histogram:
        bar = "█" * round(width * count / most) or ("▏" if count else "")
        console.print(f"{f'{low:,} to {high - 1:,}':>18} {bar} {count:,}")
