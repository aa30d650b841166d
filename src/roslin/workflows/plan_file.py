"""plan.json of a run: what was planned before it, and what was measured at its end."""

from typing import Any

from roslin.memory import GIB, gib
from roslin.tune import Prepared, Recipe, Tuned
from roslin.tune.log import memory_gib
from roslin.tune.plan import machine_of
from roslin.tune.setup import choose_device
from roslin.tune.whole import read_json, write_json
from roslin.workflows.run_folder import PLAN


def as_begun(recipe: Recipe) -> Recipe:
    """The recipe with the moments and gradients that its run, if it has begun, was planned with.

    A plan may choose others on another machine, and a run must go on as it is. Gradients of one pass, which are as good
    as a sum in fp32, are left to the plan: passes may become shorter or longer.
    """
    planned = read_json(recipe.output / PLAN)
    if planned is None or not (recipe.output / "checkpoints").is_dir():
        return recipe
    optimizer, predicted = recipe.optimizer, planned["predicted"]
    kept = ["moments"] if predicted.get("one_pass") else ["moments", "gradients"]
    begun = {key: predicted[key] for key in kept if getattr(optimizer, key) == "auto"}
    return recipe.model_copy(update={"optimizer": optimizer.model_copy(update=begun)})


def write_plan(recipe: Recipe, prepared: Prepared) -> None:
    """Write what is planned. Raises MachineError when it cannot be written."""
    write_json(recipe.output / PLAN, {"predicted": _predicted(recipe, prepared), "measured": None})


def finish_plan(recipe: Recipe, prepared: Prepared, tuned: Tuned) -> str:
    """Add what was measured, and say it beside what was predicted. Raises MachineError when it cannot be written."""
    predicted = _predicted(recipe, prepared)
    device = choose_device(recipe)
    peak, speed = memory_gib(device), tuned.tokens / tuned.seconds
    measured = {"peak": round(peak * GIB), "tokens_per_second": speed, "of_whole_process": device.type == "cpu"}
    write_json(recipe.output / PLAN, {"predicted": predicted, "measured": measured})
    return f"{_memory_line(prepared, peak, device.type)} {_speed_line(predicted['tokens_per_second'], speed)}"


def _predicted(recipe: Recipe, prepared: Prepared) -> dict[str, Any]:
    plan, run = prepared.plan, prepared.run
    seconds = plan.update_seconds
    return {
        "machine": machine_of(choose_device(recipe), prepared.processes.count).name,
        **plan.as_object(),
        "tokens_per_second": None if seconds is None else run.work.mean_update / seconds,
        "longest_update_tokens": run.work.longest_update,
    }


def _memory_line(prepared: Prepared, peak: float, device: str) -> str:
    planned = gib(prepared.plan.total)
    if device == "cpu":
        return f"Memory: {planned} GiB of tensors were predicted; the whole process took {peak:.2f}."
    return f"Memory: {planned} GiB predicted, {peak:.1f} measured ({_off(prepared.plan.total / GIB, peak)})."


def _speed_line(predicted: float | None, measured: float) -> str:
    if predicted is None:
        return f"Speed: {measured:,.0f} tokens/s."
    return f"Speed: {predicted:,.0f} tokens/s predicted, {measured:,.0f} measured ({_off(predicted, measured)})."


def _off(predicted: float, measured: float) -> str:
    return f"{(measured / predicted - 1) * 100:+.1f} %"
