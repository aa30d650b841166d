"""Curves in MLflow: where MLFLOW_TRACKING_URI says, under MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID."""

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from roslin.tune.trackers.tracker import Kind, Outcome, Points, TrackedRun
from roslin.tune.whole import read_json, write_json

EXPERIMENT = "roslin"
"""The experiment when the environment names none."""
STATUS: Mapping[Outcome, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
LONGEST_VALUE = 500
"""Characters of a parameter or tag that servers of any age take."""
BATCH = 50
"""Parameters, and tags, that servers take at once (100 together)."""


class MLflow:
    """One MLflow run for one run's folder, which remembers its id."""

    name = "mlflow"

    def start(self, run: TrackedRun) -> Mapping[Kind, int]:
        """Open the folder's MLflow run, or a new one where it has none or the server no longer knows it."""
        from mlflow.tracking import MlflowClient

        self._client: Any = MlflowClient()
        place = run.folder / "trackers" / "mlflow.json"
        known = self._known(place, run.fingerprint)
        if known is None:
            self._id = self._create(run)
            write_json(place, {"fingerprint": run.fingerprint, "run_id": self._id})
            return {}
        self._id = known
        self._client.update_run(known, status="RUNNING")
        return {"update": self._last("tune/loss"), "evaluation": self._last("held_out/loss")}

    def _known(self, place: Path, fingerprint: str) -> str | None:
        from mlflow.exceptions import MlflowException

        state = read_json(place)
        if state is None or state.get("fingerprint") != fingerprint:
            return None
        try:
            found = self._client.get_run(state.get("run_id"))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return str(found.info.run_id) if found.info.lifecycle_stage == "active" else None

    def _create(self, run: TrackedRun) -> str:
        from mlflow.entities import Param, RunTag

        facts = [RunTag(f"roslin.{name}", value[:LONGEST_VALUE]) for name, value in run.facts.items()]
        settings = [Param(name, value[:LONGEST_VALUE]) for name, value in run.settings.items()]
        new = self._client.create_run(self._experiment(), run_name=run.folder.resolve().name)
        run_id = str(new.info.run_id)
        for start in range(0, max(len(facts), len(settings)), BATCH):
            part = slice(start, start + BATCH)
            self._client.log_batch(run_id, params=settings[part], tags=facts[part])
        return run_id

    def _experiment(self) -> str:
        if identity := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return identity
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _last(self, curve: str) -> int:
        return max((point.step for point in self._client.get_metric_history(self._id, curve)), default=-1)

    def add(self, points: Points) -> None:
        """Log the points at their update."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_allowed(name), value, now, points.update) for name, value in points.values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self, outcome: Outcome) -> None:
        """End the MLflow run; one that goes on later is opened again."""
        self._client.set_terminated(self._id, STATUS[outcome])


def _allowed(name: str) -> str:
    """A curve's name without what MLflow does not take in one; categories may be called anything."""
    return re.sub(r"[^\w./ -]", "_", name)
