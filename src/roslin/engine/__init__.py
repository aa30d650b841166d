"""The engine: token ids in, token ids and log-probabilities out. It knows no text."""

from roslin.engine.engine import Engine
from roslin.engine.fused import FusedDecoder, fuse
from roslin.engine.network import Network
from roslin.engine.request import GREEDY, Completion, Event, FinishReason, Request, Sampling, Timings, Token
from roslin.engine.scoring import ScoreRow, score

__all__ = [
    "GREEDY",
    "Completion",
    "Engine",
    "Event",
    "FinishReason",
    "FusedDecoder",
    "Network",
    "Request",
    "Sampling",
    "ScoreRow",
    "Timings",
    "Token",
    "fuse",
    "score",
]
