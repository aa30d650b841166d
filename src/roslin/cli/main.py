"""The `roslin` command: its groups, and errors as people see them."""

import os
import sys
from io import BytesIO, TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import roslin
from roslin.cli import (
    ask,
    card,
    demo,
    eval,
    export,
    harness,
    judge,
    models,
    plan,
    publish,
    quantize,
    records,
    serve,
    table,
    tune,
)
from roslin.errors import RoslinError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
READER_LEFT = 141
"""Exit code when whoever read our output has gone, as shells have it."""


class Commands(TyperGroup):
    """Ends a command on Ctrl-C and on a broken pipe itself: Typer would do so in silence, and with another code."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run the command that was asked for."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt:
            print("Stopped.", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
            raise typer.Exit(READER_LEFT) from None
        return result


app = typer.Typer(
    name="roslin",
    cls=Commands,
    help="Make, run and judge instruction-following language models of the Dolly family.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo.demo)
app.add_typer(records.app, name="records", help="Check, count, split and clean instruction records.")
app.command()(models.models)
app.command()(tune.tune)
app.command()(plan.plan)
app.command()(ask.ask)
app.command()(ask.chat)
app.command()(serve.serve)
app.command("eval")(eval.eval_)
app.command()(table.table)
app.command()(export.export)
app.command()(quantize.quantize)
app.command()(publish.publish)
app.command()(card.card)
app.command(context_settings=harness.PASS_ON, add_help_option=False)(harness.harness)
app.add_typer(judge.app, name="judge", help="Two models side by side: blind sheets, judging models, scores.")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"roslin {roslin.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command; a RoslinError is printed without a traceback and becomes the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an old terminal's encoding must not end an answer
    # Streams that the caller closed: nothing to read, nobody to tell.
    sys.stdin, sys.stdout, sys.stderr = (s or TextIOWrapper(BytesIO()) for s in (sys.stdin, sys.stdout, sys.stderr))
    try:
        app()
    except RoslinError as error:
        if not error.is_told:
            print(f"roslin: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
