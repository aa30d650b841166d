"""Tuning: a recipe and records in, tuned weights out."""

from roslin.tune.held_out import HeldOutLoss, HeldOutSet
from roslin.tune.log import EvaluationLog, UpdateLog
from roslin.tune.loop import Diverged, fit
from roslin.tune.recipe import PROBES, HeldOut, Recipe
from roslin.tune.reports import Callbacks, Tuned
from roslin.tune.setup import Prepared, prepare
from roslin.tune.state import Progress
from roslin.tune.stopping import Interrupted

__all__ = [
    "PROBES",
    "Callbacks",
    "Diverged",
    "EvaluationLog",
    "HeldOut",
    "HeldOutLoss",
    "HeldOutSet",
    "Interrupted",
    "Prepared",
    "Progress",
    "Recipe",
    "Tuned",
    "UpdateLog",
    "fit",
    "prepare",
]
