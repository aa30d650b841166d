"""Curves in MLflow and W&B, for real and local: each update once, over interruptions, and never at the run's cost."""

import json
import struct
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from roslin.errors import InputError
from roslin.tune import Callbacks, Recipe, UpdateLog, fit, prepare
from roslin.tune.trackers import Points, TrackedRun, Trackers, chosen
from roslin.tune.trackers.background import Background
from roslin.tune.trackers.mlflow import _allowed
from run_recipes import changed


class Lost(Exception):
    """The machine, in the middle of a run."""


def log_of(recipe: Recipe, kind: str) -> dict[int, dict[str, Any]]:
    lines = [json.loads(line) for line in (recipe.output / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return {line["update"]: line for line in lines if line["kind"] == kind}


def lost_at(update: int) -> Callbacks:
    def lose(log: UpdateLog) -> None:
        if log.update == update:
            raise Lost

    return Callbacks(on_step=lose)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def experiment(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {
        "MLFLOW_TRACKING_URI": store,
        "MLFLOW_EXPERIMENT_NAME": tmp_path.name,
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
    return tmp_path.name


def mlflow_runs(experiment: str) -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id]))


def history(run: Any, curve: str) -> list[tuple[int, float]]:
    from mlflow.tracking import MlflowClient

    return sorted((point.step, point.value) for point in MlflowClient().get_metric_history(run.info.run_id, curve))


def assert_whole(run: Any, recipe: Recipe) -> None:
    """Every line of the log is in MLflow, once."""
    updates, evaluations = log_of(recipe, "update"), log_of(recipe, "evaluation")
    assert history(run, "tune/loss") == [(update, line["loss"]) for update, line in updates.items()]
    assert history(run, "held_out/loss") == [(update, line["held_out"]) for update, line in evaluations.items()]
    by_category = [(update, line["by_category"]["open_qa"]) for update, line in evaluations.items()]
    assert history(run, "held_out_by_category/open_qa") == by_category


@pytest.mark.full
def test_a_run_that_was_lost_goes_on_in_its_mlflow_run(recipe: Recipe, experiment: str) -> None:
    tracked = changed(recipe, trackers=["mlflow"], epochs=2)
    with pytest.raises(Lost):
        fit(tracked, prepare(tracked), lost_at(7))  # the checkpoint is of update 4
    [run] = mlflow_runs(experiment)
    assert run.info.status == "FAILED"
    assert history(run, "tune/loss")[-1][0] == 7

    tuned = fit(tracked, prepare(tracked), facts={"packages": {"torch": "9.9"}})
    [run] = mlflow_runs(experiment)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "run"
    assert run.data.params["learning_rate"] == "0.001"
    assert run.data.params["held_out.fraction"] == "0.2"
    assert history(run, "tune/loss")[-1][0] == tuned.updates_in_all
    assert_whole(run, tracked)


def test_another_run_in_the_same_folder_is_another_mlflow_run(recipe: Recipe, experiment: str) -> None:
    for rate in (1e-3, 5e-4):
        tracked = changed(recipe, trackers="mlflow", learning_rate=rate, checkpoint_every=50)
        with pytest.raises(Lost):
            fit(tracked, prepare(tracked), lost_at(2), facts={"packages": {"torch": "9.9"}})
    runs = mlflow_runs(experiment)
    assert {run.data.params["learning_rate"] for run in runs} == {"0.001", "0.0005"}
    assert {run.data.tags["roslin.packages.torch"] for run in runs} == {"9.9"}
    assert [len(history(run, "tune/loss")) for run in runs] == [2, 2]


def test_a_server_that_goes_away_costs_a_warning_and_the_gap_is_filled_later(
    recipe: Recipe, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    real, calls = MlflowClient.log_batch, 0

    def gone_after_some(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 6:
            raise ConnectionError("the server is gone\nand more")
        return real(self, *args, **kwargs)

    warnings: list[str] = []
    tracked = changed(recipe, trackers=["mlflow"], epochs=1)
    monkeypatch.setattr(MlflowClient, "log_batch", gone_after_some)
    tuned = fit(tracked, prepare(tracked), Callbacks(on_warning=warnings.append))
    assert warnings == ["mlflow gets no more of this run's curves (the server is gone); log.jsonl has them all."]
    assert len(log_of(tracked, "update")) == tuned.updates_in_all
    [run] = mlflow_runs(experiment)
    assert 0 < len(history(run, "tune/loss")) < tuned.updates_in_all

    monkeypatch.setattr(MlflowClient, "log_batch", real)
    fit(tracked, prepare(tracked), Callbacks(on_warning=warnings.append))
    assert len(warnings) == 1
    assert_whole(run, tracked)


def test_an_mlflow_run_that_was_deleted_is_made_anew(recipe: Recipe, experiment: str) -> None:
    from mlflow.tracking import MlflowClient

    tracked = changed(recipe, trackers=["mlflow"], epochs=1)
    fit(tracked, prepare(tracked))
    [first] = mlflow_runs(experiment)
    MlflowClient().delete_run(first.info.run_id)
    fit(tracked, prepare(tracked))
    [second] = mlflow_runs(experiment)
    assert second.info.run_id != first.info.run_id
    assert_whole(second, tracked)


def test_categories_may_be_called_anything() -> None:
    assert _allowed("held_out_by_category/Q&A: häufig?") == "held_out_by_category/Q_A_ häufig_"


HEADER, BLOCK = 7, 32768


def offline_history(folder: Path) -> list[dict[str, Any]]:
    """Rows of W&B's offline files: protocol buffers in LevelDB's log format (blocks of 32 KiB; crc, length, type)."""
    from wandb.proto.wandb_internal_pb2 import Record

    rows = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        data, place, record = path.read_bytes(), HEADER, b""
        while place + HEADER <= len(data):
            left = BLOCK - place % BLOCK
            if left < HEADER:
                place += left
                continue
            _, length, kind = struct.unpack("<IHB", data[place : place + HEADER])
            record += data[place + HEADER : place + HEADER + length]
            place += HEADER + length
            if kind in (1, 4):  # whole, or the last part
                parsed = Record.FromString(record)
                record = b""
                if parsed.HasField("history"):
                    items = parsed.history.item
                    rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows


def test_a_run_that_was_lost_goes_on_in_its_wandb_run(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracked = changed(recipe, trackers=["wandb"], epochs=2)
    with pytest.raises(Lost):
        fit(tracked, prepare(tracked), lost_at(7))
    fit(tracked, prepare(tracked))
    names = {path.name.rsplit("-", 1)[-1] for path in tracked.output.glob("wandb/offline-run-*")}
    assert len(names) == 1, "one id in both parts"
    rows = offline_history(tracked.output)
    losses = [(row["_step"], row["tune/loss"]) for row in rows if "tune/loss" in row]
    held_out = [(row["_step"], row["held_out/loss"]) for row in rows if "held_out/loss" in row]
    assert losses == [(update, line["loss"]) for update, line in log_of(tracked, "update").items()]
    assert held_out == [(update, line["held_out"]) for update, line in log_of(tracked, "evaluation").items()]


def test_a_run_that_was_lost_goes_on_in_its_tensorboard_curves(recipe: Recipe) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracked = changed(recipe, tensorboard=None, trackers=["tensorboard"], epochs=2)
    with pytest.raises(Lost):
        fit(tracked, prepare(tracked), lost_at(7))
    fit(tracked, prepare(tracked))
    events = EventAccumulator(str(tracked.output / "tensorboard")).Reload()
    losses = [(point.step, point.value) for point in events.Scalars("tune/loss")]
    assert losses == [(update, pytest.approx(line["loss"])) for update, line in log_of(tracked, "update").items()]
    held_out = [point.step for point in events.Scalars("held_out/loss")]
    assert held_out == list(log_of(tracked, "evaluation"))


class Slow:
    name = "slow"

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.got: list[Points] = []

    def start(self, run: TrackedRun) -> Mapping[Any, int]:
        return {"update": 1}

    def add(self, points: Points) -> None:
        self.go_on.wait()
        self.got.append(points)

    def close(self, outcome: Any) -> None:
        self.got.append(outcome)


def test_nobody_waits_long_for_a_tracker_that_hangs(tmp_path: Path) -> None:
    warnings: list[str] = []
    slow = Slow()
    tracker = Background(slow, warnings.append)
    tracker.start(TrackedRun(tmp_path, {}, {}, "f", -1), [Points("update", update, {}) for update in (1, 2)])
    tracker.add(Points("update", 3, {}))
    tracker.close("finished")
    tracker.wait(patience=0.05)
    assert warnings == ["slow has not taken all curves after 0 s and is not waited for; log.jsonl has them all."]
    slow.go_on.set()
    tracker.wait()
    assert [points.update for points in slow.got[:-1]] == [2, 3], "what it has, it does not get again"
    assert slow.got[-1] == "finished"


def test_a_tracker_without_its_package_is_told_before_anything_is_loaded(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chosen, "find_spec", lambda name: None)
    for asked, extra in (
        ({"trackers": ["mlflow", "wandb"]}, r"roslin\[mlflow,wandb\]"),
        ({"tensorboard": True}, r"roslin\[tensorboard\]"),
    ):
        with pytest.raises(InputError, match=extra):
            prepare(changed(recipe, **asked, model="/nowhere"))


@pytest.mark.parametrize(
    ("said", "trackers"),
    [
        ({"tensorboard": None}, ["tensorboard"]),  # as older recipes had it, by default
        ({"tensorboard": True}, ["tensorboard"]),
        ({"tensorboard": False}, []),
        ({"tensorboard": None, "trackers": []}, []),
        ({"tensorboard": True, "trackers": ["mlflow"]}, ["mlflow", "tensorboard"]),
        ({"tensorboard": None, "trackers": ["wandb", "tensorboard", "wandb"]}, ["wandb", "tensorboard"]),
    ],
)
def test_the_recipe_chooses_and_older_recipes_keep_their_meaning(
    recipe: Recipe, said: dict[str, Any], trackers: list[str]
) -> None:
    found = Trackers.of(changed(recipe, **said), lambda text: None)
    assert [tracker._tracker.name for tracker in found._all] == trackers


def test_tensorboard_cannot_be_both_asked_for_and_left_out(recipe: Recipe) -> None:
    with pytest.raises(InputError, match="tensorboard: false, and trackers names it"):
        changed(recipe, tensorboard=False, trackers=["tensorboard"])
