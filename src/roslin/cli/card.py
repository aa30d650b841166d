"""`roslin card`: a model folder's README.md, made from what is recorded of the model."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.text import Text

from roslin.cli.screen import printable, progress_console
from roslin.cli.table import USUAL_STORE
from roslin.errors import InputError, UsageError

if TYPE_CHECKING:
    from roslin.workflows.card import MadeCard


def card(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A model's or adapter's folder, whoever made it.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the card there, and nothing else.")] = None,
    owner: Annotated[str | None, typer.Option(help="Who owns the model.")] = None,
    license_: Annotated[
        str | None, typer.Option("--license", help="The model's licence, as the hub spells it (apache-2.0).")
    ] = None,
    store: Annotated[Path, typer.Option(metavar="FILE", help="Where `roslin eval` keeps results.")] = USUAL_STORE,
    force: Annotated[
        bool, typer.Option("--force", help="Write over a card that another wrote, and over edited sections.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: what the card is made from.")] = False,
) -> None:
    """Write the model's card from what the run and the evaluations recorded; what was not measured is said to be.

    Your own words before, between and behind Roslin's sections are kept. `--owner` and `--license` are remembered.
    """
    from roslin.workflows.card import CardOptions, make_card

    _check_texts(owner, license_)
    asked_for = context.get_parameter_source("store")
    named = asked_for is not None and asked_for.name == "COMMANDLINE"
    _check_place(out)
    options = CardOptions(out, owner, license_, store if named or store.is_file() else None, force)
    console = progress_console()
    with console.status("reading the model"):
        made = make_card(_folder(model), options)
    for warning in made.facts.warnings:
        console.print(Text(printable(f"warning: {warning}"), style="yellow"))
    if as_json:
        typer.echo(orjson.dumps(as_object(made), option=orjson.OPT_INDENT_2))
    else:
        _say(made)


def _check_texts(owner: str | None, licence: str | None) -> None:
    if owner is not None and not owner.isprintable():
        raise UsageError("--owner holds what is no text: give it as UTF-8, in one line.")
    if owner is not None and not owner.strip():
        raise UsageError("--owner is empty: name a person or an organisation, or leave it out.")
    if licence is not None and not licence.strip():
        raise UsageError("--license is empty: give the hub's name for it (apache-2.0, mit, cc-by-sa-4.0 …).")
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
        raise UsageError(
            f"--license {licence}: a hub's name for a licence has small letters, digits, dots and hyphens (apache-2.0, "
            "cc-by-sa-4.0). For one that the hub has no name for give `other`, and say in the card which it is."
        )


def _check_place(out: Path | None) -> None:
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise UsageError(f"--out {out} is no file in a folder that is there: name another, CARD.md say.")


def _folder(model: str) -> Path:
    folder = Path(model).expanduser()
    if not folder.exists():
        raise InputError(
            f"{model}: there is no such folder (looked from {Path.cwd()}). A card is written for a model's folder on "
            "this machine: give the one that `roslin tune` or `roslin export` wrote."
        )
    return folder


def _say(made: "MadeCard") -> None:
    from roslin.publish.card import gaps

    typer.echo(made.path)
    console = progress_console()
    missing = gaps(made.facts)
    for gap in missing.values():
        how = f": {gap.command}" if gap.command else ""
        console.print(Text(f"{gap.what}{how}"))


def as_object(made: "MadeCard") -> dict[str, Any]:
    """All that is known of a card, for JSON."""
    from roslin.publish.card import gaps

    missing = gaps(made.facts)
    return {
        "card": str(made.path),
        "licence": made.facts.licence,
        "warnings": made.facts.warnings,
        "missing": {name: {"what": gap.what, "command": gap.command} for name, gap in missing.items()},
        "weights_as_tuned": made.facts.as_tuned,
        "evidence": made.facts.evidence.model_dump(mode="json"),
    }
