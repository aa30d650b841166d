"""`roslin serve`: a model behind OpenAI's http interface, with a chat page."""

from typing import Annotated

import typer

from roslin.cli.ask import Cache, Device, Draft, Dtype, Model, Prompt, Revision, RopeScaling, load, tell
from roslin.cli.torchrun import works_for_first
from roslin.errors import UsageError


def serve(
    model: Model,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is every one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 is any that is free.")] = 8000,
    max_batch: Annotated[int, typer.Option(min=1, help="Answers that run at once; more wait in a queue.")] = 16,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="ROSLIN_API_KEY",
            show_envvar=True,
            help="Key that clients must send. In the environment it stays out of the list of processes.",
        ),
    ] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    prompt: Prompt = "auto",
    revision: Revision = None,
    rope_scaling: RopeScaling = None,
    draft: Draft = None,
    cache: Cache = "auto",
) -> None:
    """Serve a model to OpenAI's clients (/v1/chat/completions, /v1/completions) and as a chat page in the browser.

    Each question stands by itself: in a chat the last message is the instruction, and the messages before it are its
    context. The prompt of a completion is an instruction too. Settings that a client leaves open are Dolly's.
    """
    try:
        from roslin.serve import open_socket, served_name
        from roslin.serve import serve as run
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "starlette", "uvicorn"):
            raise
        raise UsageError(f"`roslin serve` needs {error.name}: pip install 'roslin[serve]'") from None
    if works_for_first():
        load(model, dtype, device, prompt, revision, rope_scaling, parallel=True)
    if api_key is not None and not (api_key.isascii() and api_key.isprintable() and api_key.split() == [api_key]):
        raise UsageError("The API key must be printable ASCII without blanks.")
    with open_socket(host, port) as listening:
        roslin = load(model, dtype, device, prompt, revision, rope_scaling, draft, parallel=True, cache=cache)
        try:
            run(roslin, listening, served_name(model), max_batch=max_batch, api_key=api_key, tell=tell)
        except KeyboardInterrupt:
            tell("Stopped.")
            raise typer.Exit(130) from None
