"""Whole runs on several processes: the losses are one process's, whoever dies, stops or takes over in between."""

import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from roslin.tune import Recipe, fit, prepare
from run_recipes import changed
from sharded_runs import BEFALLEN, LIMIT, Launch, assert_same_curve, curve, on_two_machines
from tiny import tiny_gptj, tiny_llama


def named(recipe: Recipe, name: str, **values: object) -> Recipe:
    return changed(recipe, output=recipe.output.with_name(name), **values)


@pytest.fixture
def single(recipe: Recipe) -> Path:
    """The run of one process."""
    one = named(recipe, "one")
    fit(one, prepare(one))
    return one.output


@pytest.mark.full
def test_stopped_on_two_processes_one_goes_on(recipe: Recipe, single: Path, launch: Launch) -> None:
    """One rank alone is told to stop; both do so at the same update, and a run without torchrun is the rest of it."""
    stopped = launch(recipe, 2, befalls=(signal.SIGTERM, 1, 7))
    assert stopped.stderr.count("Stopped, and saved. The same command goes on from here.") == 1
    assert stopped.stderr.count("update 7/") == 1
    assert curve(recipe.output)[-1]["update"] == 7
    fit(recipe, prepare(recipe))
    assert_same_curve(recipe.output, single)


@pytest.mark.parametrize(
    ("processes", "replicas"),
    [(2, None), pytest.param(4, None, marks=pytest.mark.full), pytest.param(4, 2, marks=pytest.mark.full)],
)
def test_losses_are_those_of_one_process(
    recipe: Recipe, single: Path, launch: Launch, processes: int, replicas: int | None
) -> None:
    """Of shards, and of shards in two replicas; rows are fewer than processes in some updates. One model is written."""
    shared = changed(recipe, sharding={"replicas": replicas} if replicas else {})
    ended = launch(shared, processes)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [str(recipe.output / "model")]
    assert_same_curve(recipe.output, single)
    held_out = curve(recipe.output)[-1]["held_out"]
    tuned = named(recipe, "again", model=str(recipe.output / "model"), init_keys="keep")
    again = prepare(tuned)
    assert again.held_out.measure(again.decoder).loss == pytest.approx(held_out, abs=1e-5)


@pytest.mark.full
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_checkpoints_go_from_four_processes_to_two_to_one(recipe: Recipe, launch: Launch, precision: str) -> None:
    """With moments in 8 bits where matrices have whole blocks, too."""
    settings = {"precision": precision, "optimizer": {"moments": "8bit"} if precision == "bf16" else {}}
    whole, passed_on = named(recipe, "whole", **settings), named(recipe, "passed-on", **settings)
    fit(whole, prepare(whole))
    launch(passed_on, 4, befalls=(signal.SIGINT, 3, 5))
    launch(passed_on, 2, befalls=(signal.SIGINT, 0, 6))
    assert curve(passed_on.output)[-1]["update"] == 11
    fit(passed_on, prepare(passed_on))
    if precision == "fp32":
        assert_same_curve(passed_on.output, whole.output)
        return
    ends = [curve(output)[-1]["held_out"] for output in (whole.output, passed_on.output)]
    assert ends[0] == pytest.approx(ends[1], rel=5e-3)


@pytest.mark.full
def test_one_process_saves_and_two_go_on(recipe: Recipe, single: Path, launch: Launch) -> None:
    launch(recipe, 1, befalls=(signal.SIGINT, 0, 9))
    assert curve(recipe.output)[-1]["update"] == 9
    assert launch(recipe, 2).returncode == 0
    assert_same_curve(recipe.output, single)


@pytest.mark.full
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_is_named_and_the_run_goes_on(
    recipe: Recipe, single: Path, launch: Launch, victim: int
) -> None:
    killed = launch(recipe, 2, befalls=(signal.SIGKILL, victim, 6))
    assert killed.returncode != 0
    [told] = [line for line in killed.stderr.splitlines() if line.startswith("roslin: ")]
    assert re.match(rf"roslin: Rank {victim} \(host \S+, pid \d+\) has died or hangs: no sign of life for more", told)
    pid = re.search(r"pid (\d+)", told)
    assert pid is not None
    assert f"failed (exitcode: -9) local_rank: {victim} (pid: {pid[1]})" in killed.stderr
    assert re.search(rf"rank +: {1 - victim} .*\n +exitcode +: 3 ", killed.stderr)
    assert launch(recipe, 2).returncode == 0
    assert_same_curve(recipe.output, single)


@pytest.mark.full
def test_a_process_that_stands_still_is_named(recipe: Recipe, launch: Launch) -> None:
    """Stopped and not dead: no connection breaks, so only its silence tells."""
    stuck = launch(changed(recipe, sharding={"timeout_seconds": 10}), 2, befalls=(signal.SIGSTOP, 1, 3))
    [told] = [line for line in stuck.stderr.splitlines() if line.startswith("roslin: ")]
    assert re.match(r"roslin: Rank 1 \(.*\) has died or hangs: no sign of life for more than 10 s", told)


@pytest.mark.full
def test_torchrun_starts_it_again_by_itself(recipe: Recipe, single: Path, launch: Launch) -> None:
    ended = launch(recipe, 2, befalls=(signal.SIGKILL, 0, 10), options=("--max-restarts=1",))
    assert ended.returncode == 0, ended.stderr
    assert "Tuning goes on from update 8 of" in ended.stderr
    assert_same_curve(recipe.output, single)


@pytest.mark.full
def test_a_machine_is_lost_and_replaced(recipe: Recipe, single: Path, tmp_path: Path) -> None:
    """Two machines, as far as torchrun sees: one goes in the midst of an update, and another joins, its count at 0."""
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.model_dump_json(), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    words = (str(BEFALLEN), str(file))
    host, guest = (
        on_two_machines(*words, str(-signal.SIGKILL), "1", "10", port=port, is_host=is_host)
        for is_host in (True, False)
    )
    assert guest.wait(LIMIT) == -signal.SIGKILL
    joined = on_two_machines(*words, port=port, is_host=False)
    told, _ = host.communicate(timeout=LIMIT)
    joined.communicate(timeout=LIMIT)
    assert (host.returncode, joined.returncode) == (0, 0), told
    assert re.search(r"^roslin: Rank 1 \(host \S+, pid \d+\) has died or hangs", told, re.MULTILINE)
    assert "Tuning goes on from update 8 of" in told
    assert_same_curve(recipe.output, single)


@pytest.mark.full
@pytest.mark.parametrize("maker", [tiny_gptj, tiny_llama])
def test_other_families_and_updates_in_the_backward_pass(
    recipe: Recipe, launch: Launch, tmp_path: Path, base_folder: Path, maker: Any
) -> None:
    """A head with a bias; one that is tied to the embedding. Every gradient is used and dropped as it comes."""
    tied = {"tie_word_embeddings": True} if maker is tiny_llama else {}
    maker(tmp_path / "other", vocab_size=8192, tokenizer=base_folder, **tied)
    at_once = {"optimizer": {"in_backward": True}, "clip_norm": None, "tokens_per_pass": 4096}
    settings = {"model": str(tmp_path / "other"), "epochs": 1, **at_once}
    one, two = named(recipe, "one", **settings), named(recipe, "two", **settings)
    fit(one, prepare(one))
    ended = launch(two, 2)
    assert ended.returncode == 0, ended.stderr
    assert_same_curve(two.output, one.output)


@pytest.mark.full
def test_the_best_weights_are_kept_across_processes(recipe: Recipe, launch: Launch) -> None:
    greedy = {"learning_rate": 2e-2, "epochs": 12, "patience": 2, "evaluate_every": 3, "explosion": 100}
    one, two = named(recipe, "one", **greedy), named(recipe, "two", **greedy)
    expected = fit(one, prepare(one))
    assert launch(two, 2).returncode == 0
    ours, theirs = curve(two.output), curve(one.output)
    assert len(ours) == len(theirs)
    best = min(line["held_out"] for line in ours if line["kind"] == "evaluation")
    assert best == pytest.approx(expected.held_out.loss, abs=1e-3)
    weights = load_file(two.output / "model" / "model.safetensors")
    assert weights.keys() == load_file(Path(recipe.model) / "model.safetensors").keys()


def test_errors_are_told_once(recipe: Recipe, launch: Launch) -> None:
    refused = launch(changed(recipe, adapter={}), 2)
    [told] = [line for line in refused.stderr.splitlines() if line.startswith("roslin: ")]
    assert told.startswith("roslin: An adapter is trained by one process")
