"""`roslin publish`: a model folder on the Hugging Face hub or on ModelScope."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
import typer

from roslin.cli.screen import printable, progress_console

if TYPE_CHECKING:
    from roslin.publish.upload import Hub, Plan, Published

HubName = Literal["huggingface", "modelscope"]
Allowed = Literal["paths"]


def publish(
    folder: Annotated[Path, typer.Argument(help="A model folder with its card, README.md.")],
    name: Annotated[str, typer.Argument(help="Where to publish it: owner/name.")],
    hub: Annotated[HubName, typer.Option(help="Which hub.")] = "huggingface",
    public: Annotated[
        bool,
        typer.Option("--public", help="Let everybody see a new repository. One that is there stays as it is."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be sent, and send nothing.")] = False,
    branch: Annotated[
        str | None,
        typer.Option("--revision", "--branch", help="The branch to publish on (main; on ModelScope, master)."),
    ] = None,
    message: Annotated[str, typer.Option("--message", "-m", help="Of the commit.")] = "Upload by Roslin",
    tag: Annotated[str | None, typer.Option(help="A tag for what was published, such as v1.0.")] = None,
    allow: Annotated[
        Allowed | None,
        typer.Option(help="paths: let paths of machines pass that stand in a text on purpose."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Publish a model folder, privately unless told otherwise, and print its address.

    What must not leave this machine is refused before anything is sent: secrets, paths, states of training. Only what
    the hub lacks is sent; a call that broke off goes on when it is given again.
    """
    from roslin.publish.upload import Target, checked_upload, plan_upload
    from roslin.publish.upload import publish as send

    console = progress_console()

    def say(text: str) -> None:
        console.print(printable(text), markup=False)

    place = _hub(hub)
    target = Target(name, branch or place.trunk, public, message, tag)
    target.check(place)
    upload = checked_upload(folder, allow_paths=allow == "paths")
    plan = plan_upload(upload, target, place, say=say, may_be_unasked=dry_run)
    if dry_run:
        typer.echo(orjson.dumps(_planned(plan, place)) if as_json else printable("\n".join(_listing(plan, place))))
        return
    for line in _remarks(plan, place):
        say(line)
    done = send(plan, place, say=say)
    typer.echo(orjson.dumps(_done(done, place)) if as_json else printable("\n".join(_result(done, place))))


def _hub(name: HubName) -> "Hub":
    if name == "modelscope":
        from roslin.publish.upload.modelscope import ModelScope

        return ModelScope()
    from roslin.publish.upload.huggingface import HuggingFace

    return HuggingFace()


def _listing(plan: "Plan", hub: "Hub") -> list[str]:
    """What a dry run says: each file with its size and what it is to the hub, and what else would happen."""
    from roslin.publish.upload import in_units

    sizes = {file.name: in_units(file.size) for file in plan.upload.files}
    wide, tall = max(map(len, sizes)), max(map(len, sizes.values()))
    rows = [f"  {name:{wide}}  {size:>{tall}}  {plan.changes[name]}" for name, size in sizes.items()]
    return [
        f"{plan.upload.folder} to {hub.address(plan.target.name, plan.target.branch)}:",
        *rows,
        _sum(plan),
        f"licence: {plan.upload.licence}",
        f"visibility: {plan.visibility}{_if_made(plan)}",
        *([f"tag: {plan.target.tag}"] if plan.target.tag else []),
        *_remarks(plan, hub),
        "Nothing was sent.",
    ]


def _if_made(plan: "Plan") -> str:
    if plan.unasked:
        return ", if the repository is not there yet"
    return "" if plan.repository else " (the repository would be made)"


def _sum(plan: "Plan") -> str:
    from roslin.publish.upload import in_units

    size = in_units(sum(file.size for file in plan.sent))
    return f"to send: {len(plan.sent)} of {len(plan.upload.files)} files, {size}"


def _remarks(plan: "Plan", hub: "Hub") -> list[str]:
    """What a person should know before it is done."""
    said = list(plan.upload.notes)
    if plan.upload.left_out:
        said.append(f"Left out: {', '.join(plan.upload.left_out)}.")
    if plan.unasked:
        said.append(f"The hub was not asked what it has: {plan.unasked}")
    if plan.repository is not None:
        there = f"{plan.target.name} is there, and {plan.visibility}"
        other = plan.target.public != (plan.visibility == "public")
        said.append(f"{there}; it stays so: {hub.settings(plan.target.name)}" if other else f"{there}.")
    if kept := [name for name in plan.only_there if name not in plan.stale]:
        said.append(f"On the hub alone, where they stay: {', '.join(kept)}.")
    if plan.stale:
        said.append(
            f"Weights that are on the hub alone, and may be loaded instead of these: {', '.join(plan.stale)}. Delete "
            "them there."
        )
    return said


def _result(done: "Published", hub: "Hub") -> list[str]:
    """What was sent, and last the address."""
    from roslin.publish.upload import in_units

    plan = done.plan
    if done.sent:
        size = in_units(sum(file.size for file in done.sent))
        at = f", commit {done.commit}" if done.commit else ""
        lines = [f"Sent {len(done.sent)} of {len(plan.upload.files)} files, {size}{at}; {plan.visibility}."]
    else:
        lines = ["Nothing to send: every file is there as it is here."]
    if plan.target.tag:
        lines.append(f"Tag {plan.target.tag}{'' if done.tagged else ' was there already'}.")
    return [*lines, hub.address(plan.target.name, plan.target.branch)]


def _planned(plan: "Plan", hub: "Hub") -> dict[str, Any]:
    """All that is known before anything is sent, for JSON."""
    return {
        "hub": hub.title,
        "name": plan.target.name,
        "branch": plan.target.branch,
        "address": hub.address(plan.target.name, plan.target.branch),
        "visibility": plan.visibility,
        "exists": None if plan.unasked else plan.repository is not None,
        "licence": plan.upload.licence,
        "files": [{"name": f.name, "bytes": f.size, "change": plan.changes[f.name]} for f in plan.upload.files],
        "left_out": list(plan.upload.left_out),
        "only_on_the_hub": plan.only_there,
        "notes": list(plan.upload.notes),
        "unasked": plan.unasked,
        "sent": [],
        "commit": None,
        "tag": None,
    }


def _done(done: "Published", hub: "Hub") -> dict[str, Any]:
    """The same, with what was sent."""
    what = {"sent": [file.name for file in done.sent], "commit": done.commit, "tag": done.plan.target.tag}
    return _planned(done.plan, hub) | what
