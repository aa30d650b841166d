"""The engine: token ids in, token ids and log-probabilities out. It knows no text."""

from roslin.engine.capacity import Capacity, Occupancy
from roslin.engine.engine import Engine
from roslin.engine.fused import FusedDecoder, fuse
from roslin.engine.network import Network
from roslin.engine.request import GREEDY, Completion, Event, FinishReason, Request, Sampling, Timings, Token
from roslin.engine.scoring import RowScore, score, score_groups
from roslin.engine.tree import ScoreRow

__all__ = [
    "GREEDY",
    "Capacity",
    "Completion",
    "Engine",
    "Event",
    "FinishReason",
    "FusedDecoder",
    "Network",
    "Occupancy",
    "Request",
    "RowScore",
    "Sampling",
    "ScoreRow",
    "Timings",
    "Token",
    "fuse",
    "score",
    "score_groups",
]
