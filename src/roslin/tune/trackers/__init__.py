"""Trackers: where a run's curves go besides log.jsonl. One interface, and TensorBoard, MLflow and W&B behind it."""

from roslin.tune.trackers.chosen import Trackers, check_installed
from roslin.tune.trackers.tracker import Kind, Outcome, Points, TrackedRun, Tracker, dotted, points_of

__all__ = [
    "Kind",
    "Outcome",
    "Points",
    "TrackedRun",
    "Tracker",
    "Trackers",
    "check_installed",
    "dotted",
    "points_of",
]
