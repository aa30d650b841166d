"""Curves in Weights & Biases: project WANDB_PROJECT, mode WANDB_MODE (`offline` writes into the run's folder)."""

import os
import secrets
from collections.abc import Mapping
from typing import Any

from roslin.tune.trackers.tracker import Kind, Outcome, Points, TrackedRun
from roslin.tune.whole import read_json, write_json

PROJECT = "roslin"
"""The project when the environment names none."""


class WandB:
    """One W&B run for one run's folder, which remembers its id and, as W&B offline cannot be asked, what it holds."""

    name = "wandb"

    def start(self, run: TrackedRun) -> Mapping[Kind, int]:
        """Open the folder's W&B run, or a new one."""
        import wandb

        self._place = run.folder / "trackers" / "wandb.json"
        state = read_json(self._place)
        if state is None or state.get("fingerprint") != run.fingerprint:
            state = {"fingerprint": run.fingerprint, "id": secrets.token_hex(8), "update": -1, "evaluation": -1}
            write_json(self._place, state)
        self._state = state
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=state["id"],
            resume="allow",
            name=run.folder.resolve().name,
            dir=str(run.folder),
            config={"recipe": dict(run.settings), "facts": dict(run.facts)},
            settings=wandb.Settings(console="off", quiet=True),
        )
        return {"update": state["update"], "evaluation": state["evaluation"]}

    def add(self, points: Points) -> None:
        """Log the points at their update."""
        self._run.log(dict(points.values), step=points.update)
        self._state[points.kind] = points.update
        write_json(self._place, self._state)

    def close(self, outcome: Outcome) -> None:
        """End the W&B run; one that goes on later is opened again."""
        self._run.finish(exit_code=0 if outcome == "finished" else 1)
