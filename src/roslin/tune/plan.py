"""From a recipe to a plan: what of memory it fixes, what its records are as work, and what is chosen for the rest."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from roslin.errors import InputError, MachineError
from roslin.memory import ADAPTERS, GPUS, Asked, choose_tuning, gib, known_gpu
from roslin.memory.passes import written_out

if TYPE_CHECKING:
    import torch

    from roslin.memory import Gpu, Gradients, Method, PassPrecision, TuningPlan
    from roslin.model import ModelConfig
    from roslin.tune.recipe import Recipe
    from roslin.tune.work import Run


@dataclass(frozen=True)
class Machine:
    """What a run is planned for."""

    memory: int
    """Bytes of each device."""
    gpu: Gpu | None = None
    """What it is, where that is known; its speed follows from that."""
    on_gpu: bool = True
    count: int = 1
    """How many devices share the run."""

    @property
    def name(self) -> str:
        """In words."""
        if not self.on_gpu:
            return "this machine's CPU"
        one = self.gpu.title if self.gpu else f"a GPU of {gib(self.memory)} GiB"
        return one if self.count == 1 else f"{self.count} × {one}"


def machine_of(device: torch.device, count: int = 1) -> Machine:
    """The machine of a device that is here; for a CPU, all memory that the system has."""
    import torch

    if device.type != "cuda":
        return Machine(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), on_gpu=False, count=count)
    memory = torch.cuda.get_device_properties(device).total_memory
    return Machine(memory, known_gpu(torch.cuda.get_device_name(device)), count=count)


def gpus_of(name: str, count: int = 1) -> Machine:
    """GPUs of the table that need not be here."""
    gpu = GPUS[name]
    return Machine(gpu.memory, gpu, count=count)


def plan_run(recipe: Recipe, config: ModelConfig, precision: PassPrecision, run: Run, machine: Machine) -> TuningPlan:
    """The settings that a run on this machine takes, as far as its recipe leaves them open.

    `precision` is that of the passes. On a CPU nothing is chosen: passes are one row, and exact. Raises
    InputError for a recipe that wants an update in one pass and passes shorter than that, for replicas that do not come
    out even, for an adapter in shards, and for fp8 where no product would be taken in it.
    """
    refuse_shared_adapter(recipe, shared=machine.count > 1 or (recipe.sharding.offload and machine.on_gpu))
    _refuse_two_limits(recipe, run)
    _refuse_fp8_in_vain(recipe, config)
    asked = asked_by(recipe, config, precision, machine)
    replicas = recipe.sharding.replicas or 1
    if machine.count % replicas:
        raise InputError(f"sharding.replicas is {replicas}, and {machine.count} processes are no multiple of it.")
    return choose_tuning(
        config,
        memory_bytes=machine.memory,
        work=run.work,
        asked=asked,
        gpus=machine.count,
        shards=machine.count // replicas,
        gpu=machine.gpu,
        device="cuda" if machine.on_gpu else "cpu",
        longest_pass=partial(run.longest_pass, processes=machine.count),
    )


def refuse_shared_adapter(recipe: Recipe, *, shared: bool) -> None:
    """Raise InputError for an adapter to a model that would be in shards."""
    if recipe.adapter and shared:
        raise InputError(
            "An adapter is trained by one process, on its GPU: many processes, and sharding.offload, are for runs in "
            "which all weights learn."
        )


def _refuse_two_limits(recipe: Recipe, run: Run) -> None:
    most, longest = recipe.tokens_per_pass, run.work.longest_update
    if recipe.optimizer.in_backward and most is not None and most < longest:
        raise InputError(
            f"tokens_per_pass is {most}, and with optimizer.in_backward every update is one pass, the longest of "
            f"{longest} tokens. Leave tokens_per_pass out, or lower records_per_update ({recipe.records_per_update})."
        )


def _refuse_fp8_in_vain(recipe: Recipe, config: ModelConfig) -> None:
    if recipe.fp8 and (recipe.precision in ("fp32", "fp16") or not written_out(config, method_of(recipe, "bf16"))):
        raise InputError(
            "fp8 is for models of the GPT-NeoX and GPT-J families, in bf16, with all weights learning: set fp8=false."
        )


def asked_by(recipe: Recipe, config: ModelConfig, precision: PassPrecision, machine: Machine) -> Asked:
    """What a recipe fixes. Gradients in 16 bits are in those of the passes, whichever the recipe names."""
    optimizer = recipe.optimizer
    free = machine.on_gpu
    return Asked(
        method=method_of(recipe, precision),
        moments=_unless_auto(optimizer.moments, None if free else "fp32"),
        gradients=_in_those_of(precision, _unless_auto(optimizer.gradients, None if free else "fp32")),
        in_backward=optimizer.in_backward,
        recomputed_layers=_layers(recipe, config, free),
        tokens_per_pass=recipe.tokens_per_pass or (None if free or optimizer.in_backward else recipe.row_length),
        offload=recipe.sharding.offload,
        fp8=recipe.fp8,
        rank=recipe.adapter.rank if recipe.adapter else 0,
        adapters_beside=precision,
    )


def _in_those_of(precision: PassPrecision, gradients: Gradients | None) -> Gradients | None:
    return gradients if gradients in (None, "fp32") or precision == "fp32" else precision


def method_of(recipe: Recipe, precision: PassPrecision) -> Method:
    """How a recipe tunes."""
    if recipe.adapter is None:
        return precision
    return "qlora" if recipe.adapter.quantize == "nf4" else "lora"


def _unless_auto(value: Any, chosen: Any) -> Any:
    return chosen if value == "auto" else value


def _layers(recipe: Recipe, config: ModelConfig, free: bool) -> int | None:
    if recipe.checkpointing == "auto":
        return None if free else 0
    if isinstance(recipe.checkpointing, int):
        return min(recipe.checkpointing, config.layers)
    return config.layers if recipe.checkpointing == "all" else 0


def as_planned(recipe: Recipe, plan: TuningPlan) -> Recipe:
    """The recipe with what a plan chose of that which decides a run's numbers.

    One pass is as good as a sum in fp32, whatever its gradients are in: a run may go on with shorter or longer passes.
    """
    gradients = "fp32" if plan.settings.one_pass and recipe.optimizer.gradients == "auto" else plan.gradients
    chosen = {"moments": plan.moments, "gradients": gradients}
    return recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update=chosen)})


def refuse_unless_it_fits(plan: TuningPlan, machine: Machine) -> None:
    """Raise MachineError when a CPU is asked for fp8; with the plan and what helps, when a GPU is too small."""
    if plan.fp8 and not machine.on_gpu:
        raise MachineError("Products in fp8 run on CUDA devices, and this run is on a CPU: set fp8=false.")
    if machine.on_gpu and not plan.fits:
        raise MachineError(f"{too_little(plan, machine)} {advice(plan)}")


def too_little(plan: TuningPlan, machine: Machine) -> str:
    """How far the memory is from sufficing, in a sentence."""
    return (
        f"This does not fit {machine.name}: {plan.needs} at the least, and {gib(plan.usable)} of the "
        f"{gib(plan.memory)} GiB can be planned with."
    )


def advice(plan: TuningPlan) -> str:
    """What would make a run fit."""
    means = []
    if plan.method not in ADAPTERS:
        if not plan.in_backward and plan.method != "fp16":
            means.append("optimizer.in_backward=true with clip_norm=null (no gradients of the whole model)")
        means += ["an adapter instead of all weights (a LoRA)", "more GPUs (torchrun)", "sharding.offload=true (slow)"]
        if plan.method == "fp32":
            other = "" if plan.in_backward else " (or fp16, on a GPU that has no bf16)"
            means.insert(0, f"precision=bf16{other}")
    elif plan.method == "lora":
        means.append("adapter.quantize=nf4 (QLoRA)")
    means.append("a lower max_length and row_length")
    if plan.in_backward:
        means.append("fewer records_per_update, for every update is one pass")
    return f"What helps: {'; '.join(means)}. `roslin plan` compares GPUs."


def plan_words(plan: TuningPlan) -> str:
    """A plan's settings as they would stand in a recipe. Adapters are small: theirs stay in fp32 and are not told."""
    words = []
    if plan.method not in ADAPTERS:
        words.append(f"optimizer.moments={plan.moments}")
        words.append("optimizer.in_backward=true" if plan.in_backward else f"optimizer.gradients={plan.gradients}")
    return " ".join(
        [*words, f"checkpointing={plan.checkpointed_layers or 'none'}", f"tokens_per_pass={plan.tokens_per_pass}"]
    )
