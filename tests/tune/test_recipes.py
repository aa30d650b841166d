"""The recipes that are shipped: they parse, name themselves, and their headers say what `roslin plan` says."""

from pathlib import Path

import pytest

from recipe_headers import RECIPES, predicted, said_in
from roslin.memory import GPUS
from roslin.tune import Recipe

FILES = sorted(RECIPES.glob("*.yaml"))
DOLLYS = [path for path in FILES if path.name.startswith("dolly-")]
WHOLE = [path for path in DOLLYS if "lora" not in path.name]

every_recipe = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
every_dolly = pytest.mark.parametrize("path", DOLLYS, ids=lambda path: path.stem)


@every_recipe
def test_it_parses_and_its_header_holds_its_launch_command(path: Path) -> None:
    Recipe.load(path)
    assert f"#   roslin tune recipes/{path.name}" in path.read_text(encoding="utf-8")


@every_dolly
def test_what_its_header_predicts_is_what_the_plan_predicts(path: Path) -> None:
    """After a change to what is predicted: python tests/recipe_headers.py."""
    said = said_in(path.read_text(encoding="utf-8"))
    assert len(said) >= 2
    for line in said:
        assert line.figures.split() == predicted(path, line).split(), line


@every_dolly
def test_departures_are_stated_and_all_others_are_dollys(path: Path) -> None:
    recipe, text = Recipe.load(path), path.read_text(encoding="utf-8")
    assert "Departures from Dolly's published runs" in text
    assert (recipe.epochs, recipe.schedule, recipe.warmup_updates) == (2, "constant", 50)
    assert (recipe.weight_decay, recipe.betas, recipe.max_length, recipe.seed) == (0, (0.9, 0.999), 2048, 42)
    assert (recipe.evaluate_every, recipe.checkpoint_every, recipe.held_out.count) == (50, 200, 200)
    if recipe.adapter is None:
        assert recipe.learning_rate == 5e-6
        words = " ".join(text.replace("#", " ").split())
        assert recipe.records_per_update == 48 or f"has {recipe.records_per_update} of them" in words
    assert (recipe.clip_norm is None) == ("nothing is clipped" in text) == recipe.optimizer.in_backward


def test_every_kind_of_hardware_has_a_recipe_for_every_model() -> None:
    """GPUs of 16, 24, 40 and 80 GB, and eight of them together."""
    said = {path: said_in(path.read_text(encoding="utf-8")) for path in DOLLYS}
    for model in ("dolly-v2-3b", "dolly-v2-7b", "dolly-v2-12b", "dolly-v1-6b"):
        lines = [line for path, found in said.items() if path.name.startswith(model) for line in found]
        assert {line.gpu for line in lines} >= {"t4", "v100", "l4", "a10", "a100-40", "a100", "h100"}
        assert any(line.count == 8 for line in lines)
        assert all(line.gpu in GPUS for line in lines)
