"""The `roslin` command: its groups, and errors as people see them."""

import sys
from typing import Annotated

import typer

import roslin
from roslin.cli import ask, demo, records, serve, tune
from roslin.errors import RoslinError

app = typer.Typer(
    name="roslin",
    help="Make, run and judge instruction-following language models of the Dolly family.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo.demo)
app.add_typer(records.app, name="records", help="Check, count, split and clean instruction records.")
app.command()(tune.tune)
app.command()(ask.ask)
app.command()(ask.chat)
app.command()(serve.serve)

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


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
    try:
        app()
    except RoslinError as error:
        print(f"roslin: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("\nroslin: stopped.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output left; there is nobody to tell
        sys.exit(INTERRUPTED)
