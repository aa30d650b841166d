"""plan.json: what was planned, what was measured, and a run that goes on as it was begun."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roslin.memory import GIB, GPUS, Asked
from roslin.memory.plan import Choice
from roslin.tune import HeldOutLoss, Recipe, Tuned, prepare
from roslin.tune import setup as preparing
from roslin.tune.plan import Machine
from roslin.tune.whole import read_json
from roslin.workflows.plan_file import _memory_line, _speed_line, as_begun, finish_plan, write_plan
from roslin.workflows.run_folder import PLAN, RECIPE_COPY, drop_run, write_recipe
from tiny_decoders import tiny_decoder

IN_BACKWARD = {"precision": "bf16", "optimizer": {"in_backward": True}, "clip_norm": None}


def a_recipe(records: Path, output: Path, **others: Any) -> Recipe:
    sizes = {"max_length": 512, "row_length": 512}
    return Recipe.parse({"model": "base", "records": [str(records)], "output": str(output)} | sizes | others)


def test_the_plan_and_then_what_was_measured(some_starter_records: Path, tmp_path: Path) -> None:
    recipe = a_recipe(some_starter_records, tmp_path / "run")
    prepared = prepare(recipe)
    write_plan(recipe, prepared)
    begun = read_json(recipe.output / PLAN)
    assert begun is not None
    assert begun["measured"] is None
    assert begun["predicted"]["parts"] == prepared.plan.parts
    assert begun["predicted"]["total"] == sum(prepared.plan.parts.values())
    loss = HeldOutLoss([1.0], [0.1], [3])
    line = finish_plan(recipe, prepared, Tuned(tiny_decoder("gpt_neox"), loss, loss, 2, 2, 4000, 2.0, False))
    assert "GiB of tensors were predicted; the whole process took" in line
    assert "Speed: 2,000 tokens/s." in line
    ended = read_json(recipe.output / PLAN)
    assert ended is not None
    assert ended["predicted"] == begun["predicted"]
    assert ended["measured"]["tokens_per_second"] == 2000
    assert ended["measured"]["peak"] > ended["predicted"]["total"]  # on a CPU it is the whole process's
    drop_run(recipe.output)
    assert not (recipe.output / PLAN).exists()


def test_on_a_gpu_both_stand_beside_each_other(some_starter_records: Path, tmp_path: Path) -> None:
    prepared = prepare(a_recipe(some_starter_records, tmp_path / "run"))
    config, gpu = prepared.decoder.config, GPUS["h100"]
    plan = Choice(config, prepared.run.work, gpu.memory, Asked(), gpu).best()
    prepared = replace(prepared, plan=plan)
    peak = plan.total / GIB * 1.02
    assert _memory_line(prepared, peak, "cuda").endswith(f"predicted, {peak:.1f} measured (+2.0 %).")
    assert _speed_line(1000.0, 950.0) == "Speed: 1,000 tokens/s predicted, 950 measured (-5.0 %)."


def test_a_run_goes_on_with_the_moments_that_it_was_begun_with(some_starter_records: Path, tmp_path: Path) -> None:
    recipe = a_recipe(some_starter_records, tmp_path / "run")
    assert as_begun(recipe) is recipe
    prepared = prepare(recipe)
    settings = replace(prepared.plan.settings, moments="8bit", gradients="bf16")
    write_plan(recipe, replace(prepared, plan=replace(prepared.plan, settings=settings)))
    assert as_begun(recipe) is recipe  # nothing was saved yet
    (recipe.output / "checkpoints").mkdir()
    begun = as_begun(recipe).optimizer
    assert (begun.moments, begun.gradients) == ("8bit", "bf16")
    asked = recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update={"moments": "fp32"})})
    assert as_begun(asked).optimizer.moments == "fp32"


@pytest.mark.parametrize("settings", [{"precision": "fp16"}, IN_BACKWARD])
def test_a_run_that_was_planned_for_a_gpu_goes_on(
    some_starter_records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """By the same recipe as by the run's own copy of it: whatever is chosen anew, a checkpoint agrees with it."""
    monkeypatch.setattr(preparing, "machine_of", lambda device, count: Machine(GPUS["h100"].memory, GPUS["h100"]))
    recipe = a_recipe(some_starter_records, tmp_path / "run", **settings)
    begun = prepare(recipe)
    assert begun.plan.settings.one_pass
    write_plan(recipe, begun)
    write_recipe(recipe, begun)
    (recipe.output / "checkpoints").mkdir()
    for again in (recipe, Recipe.load(recipe.output / RECIPE_COPY)):
        assert prepare(as_begun(again)).fingerprint == begun.fingerprint
