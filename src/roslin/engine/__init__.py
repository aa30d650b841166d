"""The engine: token ids in, token ids and log-probabilities out. It knows no text."""

from roslin.engine.engine import Engine
from roslin.engine.request import GREEDY, Completion, Event, FinishReason, Request, Sampling, Timings, Token
from roslin.engine.scoring import ScoreRow, score

__all__ = [
    "GREEDY",
    "Completion",
    "Engine",
    "Event",
    "FinishReason",
    "Request",
    "Sampling",
    "ScoreRow",
    "Timings",
    "Token",
    "score",
]
