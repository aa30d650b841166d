"""The running server: its socket, its name for the model, and how it ends."""

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from roslin.answer import Roslin
from roslin.errors import MachineError, UsageError
from roslin.serve.app import make_app
from roslin.serve.worker import Worker

SECONDS_TO_CLOSE = 1
"""What open connections have for reading their last bytes."""


class Server(uvicorn.Server):
    """uvicorn's server; when it ends, running answers end with it."""

    def __init__(self, app: FastAPI, worker: Worker) -> None:
        """Quiet but for warnings: what people need is said by the command."""
        super().__init__(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))
        self._worker = worker

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end. A second Ctrl-C would cancel amid that, and save no time."""
        if not self.should_exit:
            super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell open calls that it is over, then let uvicorn close their connections.

        It waits for them: one whose client neither reads nor goes on asking is cut off.
        """
        self._worker.stop()
        asyncio.get_running_loop().call_later(SECONDS_TO_CLOSE, self._cut_off)
        await super().shutdown(sockets)

    def _cut_off(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def open_socket(host: str, port: int) -> socket.socket:
    """Listen on a port, before a model is loaded in vain.

    Raises MachineError for a port that cannot be had, and UsageError for a host that is not this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (socket.gaierror, UnicodeError):
        raise UsageError(f"--host is {host!r}, which is no address or known name of a machine.") from None
    except OSError as error:
        raise _cannot_listen(host, port, error) from None


def _cannot_listen(host: str, port: int, error: OSError) -> MachineError | UsageError:
    match error.errno:
        case errno.EADDRNOTAVAIL:
            return UsageError(
                f"--host is {host!r}, which is not an address of this machine. 0.0.0.0 means all of them."
            )
        case errno.EADDRINUSE:
            return MachineError(f"Port {port} on {host} is in use. Choose another with --port (0: any that is free).")
        case errno.EACCES:
            return MachineError(f"Port {port} on {host} is not allowed to you. Choose one from 1024 on with --port.")
        case _:
            return MachineError(f"Cannot listen on port {port} of {host}: {error.strerror}.")


def address(listening: socket.socket) -> str:
    """Where a browser on this machine finds the page."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def served_name(model: str) -> str:
    """What clients call a model: a folder's last part (its path is nobody's business), or the name as it is."""
    folder = Path(model).expanduser()
    return folder.resolve().name if folder.is_dir() else model


def serve(
    roslin: Roslin,
    listening: socket.socket,
    name: str,
    *,
    max_batch: int = 16,
    api_key: str | None = None,
    tell: Callable[[str], None],
) -> None:
    """Serve a model as `name` until Ctrl-C, which is raised on as KeyboardInterrupt once all is closed."""
    worker = Worker(roslin, max_batch=max_batch)
    local = ipaddress.ip_address(listening.getsockname()[0]).is_loopback
    server = Server(make_app(worker, name, api_key, only_local=local and api_key is None), worker)
    worker.start()
    where = address(listening)
    tell(f"{name} answers at {where} (the chat page) and {where}v1 (OpenAI's interface). Ctrl-C ends it.")
    tell(f"Answers have memory for {worker.capacity}; the cache grows as they need it.")
    if api_key is None and not local:
        tell("note: whoever reaches this machine can ask; --api-key sets a key.")
    server.run(sockets=[listening])
