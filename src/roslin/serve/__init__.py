"""A model behind OpenAI's http interface, with a chat page. Needs the extra `roslin[serve]` (FastAPI and uvicorn)."""

from roslin.serve.app import make_app
from roslin.serve.run import Server, open_socket, serve, served_name
from roslin.serve.worker import Answers, Busy, Call, Piece, Worker

__all__ = ["Answers", "Busy", "Call", "Piece", "Server", "Worker", "make_app", "open_socket", "serve", "served_name"]
