"""`roslin judge`: two models side by side, judged blind by people or by a model, and scored."""

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from roslin.cli.ask import (
    MODEL_HELP,
    Device,
    Dtype,
    Greedy,
    MaxNewTokens,
    Prompt,
    Temperature,
    TopK,
    TopP,
    drawing,
    load,
    tell,
)
from roslin.cli.records import Map
from roslin.cli.screen import progress_console, result_console
from roslin.errors import InputError, MachineError, UsageError

if TYPE_CHECKING:
    from roslin.evaluate.pairwise import Endpoint, Judge, Key, Notebook, Outcome

LARGEST_SEED = 2**63 - 1

app = typer.Typer(no_args_is_help=True)

KeyFile = Annotated[Path, typer.Argument(metavar="KEY", help="The key that `judge sheet` wrote: sheet.key.json.")]


@app.command()
def sheet(
    model_a: Annotated[str, typer.Argument(help=MODEL_HELP)],
    model_b: Annotated[str, typer.Argument(help="The model to judge it against.")],
    records: Annotated[list[str], typer.Option(metavar="FILE", help="Records to ask about (repeat for several).")],
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="The sheet; its key goes to FILE.key.json.")],
    mapping: Map = None,
    count: Annotated[int, typer.Option(min=1, help="Records to draw, without repetition.")] = 50,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of the sample, the answers and the sides.")] = 42,
    max_new_tokens: MaxNewTokens = 256,
    greedy: Greedy = False,
    temperature: Temperature = 1.0,
    top_p: TopP = 0.92,
    top_k: TopK = 0,
    reference: Annotated[bool, typer.Option("--reference", help="Let the judges see the records' responses.")] = False,
    dtype: Dtype = "auto",
    device: Device = "auto",
    prompt: Prompt = "auto",
) -> None:
    """Write a blind sheet: a page for people who judge which of two models answers better, and its key apart.

    The page holds nothing that tells which model is which. Give it to the judges, keep the key, and score what they
    save with `roslin judge score`.
    """
    from roslin import records as rooms
    from roslin.evaluate.pairwise import answer_with_both, as_page, draw, make_key
    from roslin.model import find_model

    key_path = key_beside(out)
    require_free(out, key_path)
    settings = drawing(greedy, temperature, top_p, top_k, seed, max_new_tokens, None)
    found = rooms.load(records, mapping=rooms.parse_mapping(mapping or []))
    sample = draw(found, count, seed)
    if len(sample) < count:
        tell(f"note: there are {len(sample)} records, so the sheet has no more.")
    for model in (model_a, model_b):  # before the first of them is put to work
        find_model(model)
    names = iter((model_a, model_b))
    answered = answer_with_both(
        sample,
        lambda: load(model_a, dtype, device, prompt, None),
        lambda: load(model_b, dtype, device, prompt, None),
        settings,
        lambda number: tell(f"{next(names)} answers {number} records …"),
    )
    how = {**settings, "stop": [], "records": records, "dtype": dtype, "prompt": prompt}
    left_out = len(sample) - len(answered)
    key = make_key(answered, (model_a, model_b), seed=seed, settings=how, left_out=left_out, with_reference=reference)
    write_whole(key_path, key.as_json())
    write_whole(out, as_page(key).encode())
    if left_out:
        tell(f"note: {left_out} of the records are too long for one of the models; they are left out.")
    typer.echo(sheet_told(key, out, key_path))


@app.command()
def score(
    key_file: KeyFile,
    filled: Annotated[list[Path], typer.Argument(metavar="FILLED…", help="The files that the judges saved.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score filled sheets: wins and losses with their uncertainty, by category, and how far the judges agree."""
    from roslin.cli.judge_score import show
    from roslin.evaluate.pairwise import read_filled, read_key
    from roslin.evaluate.pairwise import score as scored

    key = read_key(key_file)
    found = scored(key, read_filled(filled, key))
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        sys.stdout.buffer.flush()
    else:
        show(found, result_console())


@app.command()
def ask(
    key_file: KeyFile,
    endpoint: Annotated[
        str, typer.Option(metavar="URL", help="What comes before /chat/completions: http://localhost:8000/v1, say.")
    ],
    judge_model: Annotated[str, typer.Option(metavar="NAME", help="The model's name at the endpoint.")],
    out: Annotated[Path, typer.Option(metavar="FILE.json", help="The filled file; replies are kept in FILE.jsonl.")],
    name: Annotated[
        str | None, typer.Option(help="The judge's name in the scores; the model's if none is given.")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="VAR", help="Environment variable that holds the API key.")
    ] = None,
    template: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A prompt of your own, with {instruction} {context} {first} {second} ({reference})."
        ),
    ] = None,
    at_once: Annotated[int, typer.Option("--concurrency", min=1, max=64, help="Pairs asked about at once.")] = 4,
    temperature: Annotated[float, typer.Option(min=0, help="Of the judge.")] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="The judge's longest reply.")] = 1024,
    body: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Other fields of the request, kept in FILE; null takes one away."),
    ] = None,
    attempts: Annotated[int, typer.Option(min=1, help="Replies to ask for until one has a clear verdict.")] = 3,
    retries: Annotated[int, typer.Option(min=0, help="Times to ask again when the endpoint is busy or away.")] = 5,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for the endpoint.")] = 120.0,
) -> None:
    """Have a sheet's pairs judged by a model behind any OpenAI-style endpoint; score the result as a person's.

    Each pair is asked about in both orders; where they differ, the pair counts as a tie. What was replied is kept as it
    comes: the same command goes on where it ended.
    """
    from roslin.evaluate.pairwise import Endpoint, Filled, ModelJudge, Notebook, read_key

    if out.suffix != ".json":
        raise UsageError(f"{out}: the filled file is JSON; give a name that ends in .json.")
    key = read_key(key_file)
    asked_at = Endpoint(
        endpoint,
        judge_model,
        api_key=api_key(api_key_env),
        temperature=temperature,
        max_tokens=max_tokens,
        body=json_object(body),
        timeout=timeout,
        retries=retries,
    )
    words = judge_words(template, key)
    notebook_path = out.with_suffix(".jsonl")
    if out.exists() and not notebook_path.exists():
        raise UsageError(f"{out} is there already, and is not of this command. Give another --out.")
    asked = how_asked(asked_at, words)
    notebook = Notebook(notebook_path, {"sheet": key.sheet, **asked})
    outcome = judged(key, ModelJudge(asked_at.chat, words, attempts), notebook, at_once)
    verdicts = tuple(notebook.verdicts[number] for number in sorted(notebook.verdicts))
    if verdicts:
        filled = Filled(sheet=key.sheet, judge=name or judge_model, verdicts=verdicts, asked=asked)
        write_whole(out, filled.as_json())
    finish(key, notebook, outcome, key_file, out)


def key_beside(out: Path) -> Path:
    """Where the key of a sheet goes. Raises UsageError for a sheet that is not named as a page."""
    if out.suffix != ".html":
        raise UsageError(f"{out}: the sheet is a page; give a name that ends in .html.")
    return out.with_suffix(".key.json")


def require_free(*paths: Path) -> None:
    """Raise UsageError when a file is there: verdicts on a sheet are worth nothing without its key.

    Makes their folders. Raises MachineError when one cannot be made.
    """
    there = [str(path) for path in paths if path.exists()]
    if there:
        raise UsageError(f"{' and '.join(there)} would be overwritten. Remove what is no longer needed, or rename.")
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _not_written(path, error) from None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises MachineError when it cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            unfinished = Path(folder) / path.name
            unfinished.write_bytes(content)
            unfinished.replace(path)
    except OSError as error:
        raise _not_written(path, error) from None


def _not_written(path: Path, error: OSError) -> MachineError:
    return MachineError(f"{path} cannot be written ({error.strerror or error}); name another file, or make room.")


def sheet_told(key: "Key", out: Path, key_path: Path) -> str:
    """What was written, and what to do with it."""
    same = sum(pair.left == pair.right for pair in key.pairs)
    said = f"{len(key.items)} pairs" + (f", {same} of them with the same answer twice" if same else "")
    return (
        f"{said}: {out}\nGive this page to the judges, and keep the key from them: {key_path}\n"
        f"Score what they save: roslin judge score {key_path} FILLED.json …"
    )


def api_key(variable: str | None) -> str | None:
    """The key in an environment variable. Raises UsageError when there is none in it."""
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise UsageError(f"The environment variable {variable} is not set. Put the API key into it.")
    return os.environ[variable]


def json_object(text: str | None) -> dict[str, Any]:
    """What --body holds. Raises UsageError when it is no JSON object."""
    try:
        found = orjson.loads(text or "{}")
    except orjson.JSONDecodeError as error:
        raise UsageError(f"--body is not JSON ({error}).") from None
    if not isinstance(found, dict):
        raise UsageError("--body is not a JSON object, such as '{\"seed\": 1}'.")
    return found


def how_asked(endpoint: "Endpoint", template: str) -> dict[str, Any]:
    """All that a verdict depends on, for the file; never the API key."""
    from roslin.evaluate.pairwise.template import RULE

    return {
        "endpoint": endpoint.url,
        "model": endpoint.model,
        "temperature": endpoint.temperature,
        "max_tokens": endpoint.max_tokens,
        "body": dict(endpoint.body),
        "prompt": template + RULE,
    }


def judge_words(template: Path | None, key: "Key") -> str:
    """The judge's prompt. Raises InputError for a template that does not fit the sheet."""
    from roslin.evaluate.pairwise import read_template
    from roslin.evaluate.pairwise.template import DEFAULT, DEFAULT_WITH_REFERENCE

    if template is None:
        return DEFAULT_WITH_REFERENCE if key.shows_reference else DEFAULT
    words = read_template(template)
    if "{reference}" in words and not key.shows_reference:
        raise InputError(f"{template}: it holds {{reference}}, and the sheet was made without --reference.")
    return words


def judged(key: "Key", judge: "Judge", notebook: "Notebook", at_once: int) -> "Outcome":
    """Ask about what has no verdict yet, with a bar."""
    from roslin.evaluate.pairwise import ask_about

    columns = TextColumn("judged"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    console = progress_console()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("judged", total=len(key.items), completed=len(notebook.verdicts))
        return ask_about(key.pairs, judge, notebook, at_once=at_once, on_progress=lambda: bar.advance(task))


def finish(key: "Key", notebook: "Notebook", outcome: "Outcome", key_file: Path, out: Path) -> None:
    """Say what came of it. Raises InputError when pairs are left without a verdict."""
    verdicts = notebook.verdicts.values()
    changed = sum(not verdict.consistent for verdict in verdicts)
    if verdicts:
        typer.echo(
            f"{len(verdicts)} of {len(key.items)} pairs judged, {changed} of them differently in the two orders "
            f"(these count as ties): {out}\nScore them: roslin judge score {key_file} {out}"
        )
    if not outcome.failures and not outcome.unasked:
        return
    reasons = [f"  pair {number}: {outcome.failures[number]}" for number in sorted(outcome.failures)]
    if outcome.unasked:
        reasons.append(f"  {outcome.unasked} more were not asked about, for the judge was given up: {outcome.stopped}")
    raise InputError(
        f"{len(key.items) - len(verdicts)} of {len(key.items)} pairs have no verdict, and none was made up:\n"
        + "\n".join(reasons)
        + "\nThe same command asks about these alone. A judge that does not keep to the form may need other "
        "words (--template), more room (--max-tokens), or to be another model."
    )
