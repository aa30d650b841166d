"""Whether a recipe fits a machine, which GPUs would do for it, and what would make it fit those that do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from roslin.memory import GPUS
from roslin.tune.plan import gpus_of, plan_run
from roslin.tune.precision import choose_precision, without_bf16
from roslin.tune.recipe import Adapter
from roslin.tune.work import work_before_tuning

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from roslin.memory import Gpu, PassPrecision, TuningPlan
    from roslin.model import ModelConfig
    from roslin.tune.plan import Machine
    from roslin.tune.recipe import Recipe
    from roslin.tune.work import Run

COUNTS = (1, 2, 4, 8)
"""GPUs in one machine."""


@dataclass(frozen=True)
class Way:
    """One way to run a recipe on a kind of GPU."""

    machine: Machine
    plan: TuningPlan
    change: str
    """What of the recipe is changed for it, in a recipe's words; empty where nothing is."""


@dataclass(frozen=True)
class Outlook:
    """All that is known of a recipe's run before it begins."""

    recipe: Recipe
    config: ModelConfig
    machine: Machine
    run: Run
    source: str
    """What the run's lengths were taken from."""
    precision: PassPrecision
    """Of the passes."""
    plan: TuningPlan
    lacking: str | None
    """What the machine lacks besides memory."""
    ways: dict[str, list[Way]]

    @property
    def fits(self) -> bool:
        """Whether the run can begin."""
        return self.plan.fits and self.lacking is None


def look_ahead(recipe: Recipe, config: ModelConfig, folder: Path | None, machine: Machine) -> Outlook:
    """Plan a recipe for a machine, and for all GPUs of the table. `folder` is the model's, where it is here."""
    run, source = work_before_tuning(recipe, folder)
    precision = precision_on(recipe, machine)
    plan = plan_run(recipe, config, precision, run, machine)
    lacks = lacking(recipe, machine.gpu) if machine.gpu else "has no fp8" if recipe.fp8 and not machine.on_gpu else None
    return Outlook(recipe, config, machine, run, source, precision, plan, lacks, ways(recipe, config, run))


def precision_on(recipe: Recipe, machine: Machine) -> PassPrecision:
    """What passes are computed in on a machine."""
    if recipe.precision == "auto" and machine.gpu is not None:
        return "bf16" if machine.gpu.bf16 else without_bf16(recipe)
    return choose_precision(recipe, torch.device("cuda" if machine.on_gpu else "cpu"))


def lacking(recipe: Recipe, gpu: Gpu) -> str | None:
    """What the recipe asks for and the GPU does not have, in words."""
    if recipe.precision == "bf16" and not gpu.bf16:
        return "has no bf16 (precision=fp16 or auto)"
    return "has no fp8" if recipe.fp8 and not gpu.fp8 else None


def ways(recipe: Recipe, config: ModelConfig, run: Run) -> dict[str, list[Way]]:
    """For every GPU of the table the ways that fit it: as the recipe is, on as few as will do, and changed, on one."""
    return {name: list(_ways_on(gpu, recipe, config, run)) for name, gpu in GPUS.items()}


def _ways_on(gpu: Gpu, recipe: Recipe, config: ModelConfig, run: Run) -> Iterator[Way]:
    if lacking(recipe, gpu):
        return
    for count in _counts(recipe):
        machine = gpus_of(gpu.name, count)
        plan = plan_run(recipe, config, precision_on(recipe, machine), run, machine)
        if plan.fits:
            yield Way(machine, plan, "")
            if count == 1:
                return
            break
    if recipe.sharding.replicas:
        return
    machine = gpus_of(gpu.name)
    for change, changed in _changed(recipe):
        plan = plan_run(changed, config, precision_on(changed, machine), run, machine)
        if plan.fits:
            yield Way(machine, plan, change)
            return


def _counts(recipe: Recipe) -> list[int]:
    """Of GPUs that can share the recipe's run."""
    if recipe.adapter is not None:
        return [1]
    return [count for count in COUNTS if count % (recipe.sharding.replicas or 1) == 0]


def _changed(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """The recipe with what needs less memory, the mildest change first, and in a recipe's words what is changed."""
    if recipe.adapter is None and not recipe.optimizer.in_backward and recipe.precision != "fp16":
        optimizer = recipe.optimizer.model_copy(update={"in_backward": True, "gradients": "auto"})
        words = ["optimizer.in_backward=true clip_norm=null"]
        if recipe.optimizer.gradients == "fp32":
            words.append("optimizer.gradients=auto")
        if recipe.tokens_per_pass is not None:
            words.append("tokens_per_pass=null")
        changes = {"optimizer": optimizer, "clip_norm": None, "tokens_per_pass": None}
        yield " ".join(words), recipe.model_copy(update=changes)
    for quantize in ("none", "nf4"):
        if recipe.adapter is None or (recipe.adapter.quantize, quantize) == ("none", "nf4"):
            adapter = (recipe.adapter or Adapter()).model_copy(update={"quantize": quantize})
            word = "adapter.quantize=nf4" if quantize == "nf4" else "adapter={}"
            word += " fp8=false" * recipe.fp8 + " sharding.offload=false" * recipe.sharding.offload
            sharding = recipe.sharding.model_copy(update={"offload": False})
            yield word, recipe.model_copy(update={"adapter": adapter, "fp8": False, "sharding": sharding})
