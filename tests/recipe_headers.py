"""What the headers of recipes say is predicted, against what `roslin plan` says; run by itself it writes the headers.

python tests/recipe_headers.py, after a change to what is predicted.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from roslin.cli.plan_text import speed_of
from roslin.memory import GPUS, gib
from roslin.model.describe import describe
from roslin.tune import Recipe
from roslin.tune.alternatives import lacking, precision_on
from roslin.tune.log import clock
from roslin.tune.plan import gpus_of, plan_run
from roslin.tune.work import work_before_tuning

RECIPES = Path(__file__).parents[1] / "recipes"
LINE = re.compile(r"^#   (?:(\d) x )?([a-z0-9-]+?) +([\d.]+ GiB .*)$", re.MULTILINE)


@dataclass(frozen=True)
class Said:
    """A line of a header: on which GPUs, and what is predicted there."""

    gpu: str
    count: int
    figures: str


def said_in(text: str) -> list[Said]:
    """The predictions of a recipe's header."""
    return [Said(gpu, int(count or 1), figures) for count, gpu, figures in LINE.findall(text) if gpu in GPUS]


def predicted(path: Path, said: Said) -> str:
    """What `roslin plan` predicts for the same; the run must fit."""
    recipe = Recipe.load(path)
    [model] = describe([recipe.model])
    run, _ = work_before_tuning(recipe, None)
    machine = gpus_of(said.gpu, said.count)
    assert lacking(recipe, GPUS[said.gpu]) is None
    plan = plan_run(recipe, model.config, precision_on(recipe, machine), run, machine)
    assert plan.fits, f"{path.name} does not fit {machine.name}: {plan.needs}"
    speed = speed_of(plan, run)
    return (
        f"{gib(plan.total):>4} GiB {speed['tokens_per_second'] or 0:>9,.0f} tokens/s {clock(speed['seconds'] or 0):>8}"
    )


def with_predictions(path: Path) -> str:
    """The recipe's text with its predictions made anew."""

    def line(found: re.Match[str]) -> str:
        said = Said(found[2], int(found[1] or 1), found[3])
        if said.gpu not in GPUS:
            return found[0]
        name = said.gpu if said.count == 1 else f"{said.count} x {said.gpu}"
        return f"#   {name:12} {predicted(path, said)}"

    return LINE.sub(line, path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    for recipe_file in sorted(RECIPES.glob("*.yaml")):
        recipe_file.write_text(with_predictions(recipe_file), encoding="utf-8")
