"""The routes: OpenAI's, health, and the chat page."""

import asyncio
import ipaddress
import secrets
import time
from collections.abc import AsyncGenerator
from dataclasses import asdict
from http import HTTPStatus
from importlib.resources import files
from typing import Annotated, Any

import orjson
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect

from roslin.errors import InputError, RoslinError
from roslin.serve.replies import ChatShape, Json, Reply, Shape, TextShape, error_object
from roslin.serve.wire import Body, ChatBody, TextBody
from roslin.serve.worker import Answers, Busy, Gone, Worker

MOST_BYTES = 4 * 2**20
"""The longest body; a model's positions hold a hundredth of it."""

CLIENT_GONE = 499
SECONDS_TO_RETRY = 2

PAGE_RULES = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}
"""The page may load nothing and speak with nobody but this server."""


class Api:
    """The routes' functions, for one model."""

    def __init__(self, worker: Worker, name: str, api_key: str | None) -> None:
        """Serve `worker`'s model as `name`; with an `api_key`, /v1 asks for it."""
        self._worker = worker
        self._name = name
        self._api_key = api_key
        self._since = int(time.time())

    async def check_key(self, authorization: Annotated[str, Header()] = "") -> None:
        """Raises 401 without the right key."""
        sent = authorization.removeprefix("Bearer ").encode()
        if self._api_key is not None and not secrets.compare_digest(sent, self._api_key.encode()):
            raise HTTPException(401, "The API key is missing or wrong: send it as `Authorization: Bearer KEY`.")

    async def page(self) -> HTMLResponse:
        """The chat page."""
        return HTMLResponse(files("roslin.serve").joinpath("chat.html").read_text(encoding="utf-8"), headers=PAGE_RULES)

    async def health(self) -> JSONResponse:
        """Whether calls are taken, the model's name, how many answers run or wait, and how full the cache is.

        That is counted in tokens: those of running answers, those kept in case that others begin alike, and the most.
        """
        cache = asdict(self._worker.occupancy)
        told = {"status": "ok", "model": self._name, "answers": self._worker.open_answers, "cache": cache}
        if not self._worker.alive:
            return JSONResponse(told | {"status": "ended"}, 503)
        return JSONResponse(told | {"needs_key": self._api_key is not None})

    async def models(self) -> Json:
        """The one model."""
        return {"object": "list", "data": [self._model()]}

    async def model(self, name: str) -> Json:
        """The one model, asked for by name."""
        self._check_name(name)
        return self._model()

    async def chat(self, request: Request) -> Response:
        """A chat's next answer."""
        body = ChatBody.read(await read_body(request))
        return await self._reply(request, body, ChatShape())

    async def text(self, request: Request) -> Response:
        """Answers to instructions."""
        body = TextBody.read(await read_body(request))
        return await self._reply(request, body, TextShape())

    async def _reply(self, request: Request, body: ChatBody | TextBody, shape: Shape) -> Response:
        self._check_name(body.model)
        answers = await self._worker.ask(body.call())
        watch = asyncio.create_task(close_when_gone(request, answers))
        reply = Reply(shape, self._name, answers)
        if body.stream:
            events = stream(reply, answers, body, watch)
            return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        try:
            async for piece in answers.pieces():
                reply.add(piece)
        finally:
            watch.cancel()
            answers.close()
        return Response(orjson.dumps(reply.whole()), media_type="application/json")

    def _check_name(self, name: str | None) -> None:
        if name is not None and name != self._name:
            raise HTTPException(404, f"There is no model {name!r} here; this server's is {self._name!r}.")

    def _model(self) -> Json:
        return {"id": self._name, "object": "model", "created": self._since, "owned_by": "roslin"}


async def check_host(host: Annotated[str, Header()] = "") -> None:
    """Raises 403 for a name that is not surely this machine's: a web page can have its own name lead here.

    With such a name (DNS rebinding) the page would be of this server's origin in the browser's eyes. Nobody can do that
    to an address, to `localhost` or to the names under it.
    """
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if name.lower() != "localhost" and not name.lower().endswith(".localhost") and not is_address(name.strip("[]")):
        raise HTTPException(
            403,
            f"This server is for its own machine and was asked for as {host!r}. Ask for it as localhost or by its "
            "address; with --api-key it answers to any name.",
        )


def is_address(name: str) -> bool:
    """Whether this is an IP address, not a name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def read_body(request: Request) -> bytes:
    """A JSON body.

    Raises 415 for another type (a form, which any web page could send), 413 for a huge one, and Gone when the client
    leaves before its end.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, f"The body's type is {kind or 'not given'}; send Content-Type: application/json.")
    content = bytearray()
    try:
        async for part in request.stream():
            content += part
            if len(content) > MOST_BYTES:
                raise HTTPException(413, f"The body is longer than {MOST_BYTES} bytes.")
    except ClientDisconnect:
        raise Gone("The client left before its question was whole.") from None
    return bytes(content)


async def close_when_gone(request: Request, answers: Answers) -> None:
    """End the answers as soon as their client leaves."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    answers.close()


async def stream(reply: Reply, answers: Answers, body: Body, watch: "asyncio.Task[None]") -> AsyncGenerator[bytes]:
    """Server-sent events: the chunks, token counts if asked for, and [DONE]; an error in place of what is missing."""
    try:
        for chunk in reply.openings():
            yield event(chunk)
        async for piece in answers.pieces():
            yield event(reply.add(piece))
        if body.with_usage:
            yield event(reply.usage_chunk())
        yield b"data: [DONE]\n\n"
    except RoslinError as error:
        yield event(error_object(str(error), "server_error"))
    finally:
        watch.cancel()
        answers.close()


def event(content: Json) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(content) + b"\n\n"


async def tell_error(request: Request, error: Exception) -> JSONResponse:
    """Any error in OpenAI's shape, with its status."""
    match error:
        case InputError():
            return JSONResponse(error_object(str(error), "invalid_request_error"), 400)
        case Busy():
            headers = {"Retry-After": str(SECONDS_TO_RETRY)}
            return JSONResponse(error_object(str(error), "server_error", "busy"), 503, headers)
        case Gone():
            return JSONResponse(error_object(str(error), "client_gone"), CLIENT_GONE)
        case RoslinError():
            return JSONResponse(error_object(str(error), "server_error"), 500)
        case AnyHTTPException():
            code = {401: "invalid_api_key", 404: "not_found"}.get(error.status_code)
            content = error_object(told_of(error, request), "invalid_request_error", code)
            return JSONResponse(content, error.status_code, error.headers)
        case _:
            return JSONResponse(error_object("The server failed; its log says how.", "server_error"), 500)


def told_of(error: AnyHTTPException, request: Request) -> str:
    """What an error says; where the router found no path, or not for this method, what there is."""
    if error.detail != HTTPStatus(error.status_code).phrase:
        return str(error.detail)
    return (
        f"{request.method} {request.url.path} is not served here. There are GET /v1/models, POST /v1/chat/completions "
        "and POST /v1/completions; the base URL that OpenAI's clients take ends in /v1."
    )


def make_app(worker: Worker, name: str, api_key: str | None = None, *, only_local: bool = False) -> FastAPI:
    """The application. `worker` is to be started and stopped by the caller.

    With `only_local` every call is refused that does not name its host as this machine; see `check_host`.
    """
    api = Api(worker, name, api_key)
    # FastAPI's own documentation pages load scripts from elsewhere.
    everywhere = [Depends(check_host)] if only_local else []
    app = FastAPI(title="Roslin", docs_url=None, redoc_url=None, openapi_url=None, dependencies=everywhere)
    for kind in (RoslinError, AnyHTTPException, Exception):
        app.add_exception_handler(kind, tell_error)
    guarded: dict[str, Any] = {"dependencies": [Depends(api.check_key)], "response_model": None}
    app.add_api_route("/", api.page, response_model=None)
    app.add_api_route("/health", api.health, response_model=None)
    app.add_api_route("/v1/models", api.models, **guarded)
    app.add_api_route("/v1/models/{name:path}", api.model, **guarded)
    app.add_api_route("/v1/chat/completions", api.chat, methods=["POST"], **guarded)
    app.add_api_route("/v1/completions", api.text, methods=["POST"], **guarded)
    return app
