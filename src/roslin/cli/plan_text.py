"""A plan for tuning in words and tables, and as JSON."""

from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from roslin.memory import ADAPTERS, GPUS, IN_HALVES, gib
from roslin.tune.log import clock
from roslin.tune.plan import advice, plan_words, too_little

if TYPE_CHECKING:
    from roslin.memory import TuningPlan
    from roslin.tune.alternatives import Outlook, Way
    from roslin.tune.work import Run

METHODS = {
    "bf16": "all weights in bf16 passes, updates exact in fp32",
    "fp16": "all weights in fp16 passes with scaled losses, updates exact in fp32",
    "fp32": "all weights in fp32",
    "lora": "an adapter beside frozen weights",
    "qlora": "an adapter beside frozen weights in 4 bits",
}


def as_object(outlook: "Outlook") -> dict[str, Any]:
    """All of a plan, for JSON."""
    plan, run = outlook.plan, outlook.run
    return {
        "model": outlook.recipe.model,
        "parameters": outlook.config.parameter_count,
        "machine": outlook.machine.name,
        "gpus": outlook.machine.count,
        "lacking": outlook.lacking,
        "records": outlook.source,
        "updates": run.updates,
        "tokens": run.tokens,
        "mean_update_tokens": run.work.mean_update,
        "longest_update_tokens": run.work.longest_update,
        **plan.as_object(),
        **speed_of(plan, run),
        "would_do": {
            name: [
                {"gpus": way.machine.count, "change": way.change, **way.plan.as_object(), **speed_of(way.plan, run)}
                for way in found
            ]
            for name, found in outlook.ways.items()
        },
    }


def speed_of(plan: "TuningPlan", run: "Run") -> dict[str, float | None]:
    """Predicted tokens a second, of all GPUs together, and seconds of a run's updates; None where not known."""
    each = plan.update_seconds
    if each is None:
        return {"tokens_per_second": None, "seconds": None}
    return {"tokens_per_second": run.work.mean_update / each, "seconds": each * run.updates}


def show(outlook: "Outlook", console: Console) -> None:
    """Print a plan."""
    for text in (_what(outlook), _verdict(outlook)):
        console.print(Text(text))
    console.print(_parts(outlook.plan))
    if outlook.fits:
        console.print(Text(f"Settings: {plan_words(outlook.plan)}"))
        console.print(Text(_speed(outlook.plan, outlook.run)))
    elif not outlook.plan.fits:
        console.print(Text(advice(outlook.plan)))
    console.print(Text("\nGPUs that would do, as the recipe is and as it would have to be changed for one of them:"))
    console.print(_gpus(outlook))


def _what(outlook: "Outlook") -> str:
    run, recipe = outlook.run, outlook.recipe
    return (
        f"{recipe.model}, {outlook.config.parameter_count / 1e9:.2f} B parameters; "
        f"{METHODS[outlook.plan.method]}, computed in {outlook.precision}.\n"
        f"{run.updates:,} updates of {run.work.mean_update:,.0f} tokens, the longest of {run.work.longest_update:,}; "
        f"{outlook.source}."
    )


def _verdict(outlook: "Outlook") -> str:
    plan, machine = outlook.plan, outlook.machine
    if outlook.lacking:
        return f"\nThis does not run on {machine.name}: it {outlook.lacking}."
    if not plan.fits:
        return f"\n{too_little(plan, machine)}"
    each = " each" if machine.count > 1 else ""
    return (
        f"\nThis fits {machine.name}: {gib(plan.total)} of {gib(plan.memory)} GiB{each} "
        f"({gib(plan.usable)} can be planned with)."
    )


def _parts(plan: "TuningPlan") -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    parts = {name: count for name, count in plan.parts.items() if count}
    for name, count in (*parts.items(), ("total", plan.total)):
        table.add_row(f"  {name}", f"{gib(count)} GiB")
    return table


def _speed(plan: "TuningPlan", run: "Run") -> str:
    speed = speed_of(plan, run)
    tokens, seconds = speed["tokens_per_second"], speed["seconds"]
    if tokens is None or seconds is None:
        return "How fast this is cannot be predicted here."
    return (
        f"Predicted: {tokens:,.0f} tokens/s, {clock(seconds)} for {run.tokens / 1e6:,.2f} M tokens; "
        "loading, evaluations and checkpoints come on top."
    )


def _gpus(outlook: "Outlook") -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for heading in ("GPU", "GiB each", "tokens/s", "time"):
        table.add_column(heading, justify="left" if heading == "GPU" else "right")
    table.add_column("settings", overflow="fold")
    for name, found in outlook.ways.items():
        for way in found:
            table.add_row(*(Text(cell) for cell in _cells(way, outlook.run)))
        if not found:
            table.add_row(Text(GPUS[name].title), "", "", "", Text("no"))
    return table


def _cells(way: "Way", run: "Run") -> list[str]:
    speed = speed_of(way.plan, run)
    tokens, seconds = speed["tokens_per_second"] or 0, speed["seconds"] or 0
    settings = _settings(way.plan)
    said = f"{way.change}; {settings}" if way.change else settings
    return [way.machine.name, gib(way.plan.total), f"{tokens:,.0f}", clock(seconds), said]


def _settings(plan: "TuningPlan") -> str:
    words = [] if plan.method in ADAPTERS else [f"{plan.moments} moments"]
    if plan.method in IN_HALVES and not plan.in_backward:
        words.append(f"{plan.gradients} gradients")
    if plan.checkpointed_layers:
        words.append(f"{plan.checkpointed_layers} layers checkpointed")
    words.append(f"{plan.tokens_per_pass:,} tokens a pass")
    return ", ".join(words)
