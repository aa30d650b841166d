"""The figures of the pages about GPUs, by what `roslin plan` reckons; run by itself it writes them into the pages.

python tests/gpu_pages.py, after a change to what is predicted. In a page, figures stand between `<!-- figures: KIND
GPU … -->` and `<!-- end of figures -->`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from recipe_headers import RECIPES, Said, predicted
from roslin.cli.models import needs_of
from roslin.cli.plan_serving import most_at_once
from roslin.memory import GPUS, answering, gib
from roslin.memory.gpus import COPY_REACH
from roslin.model.describe import Description, describe
from roslin.tune import Recipe
from roslin.tune.alternatives import precision_on
from roslin.tune.plan import gpus_of, plan_run
from roslin.tune.work import work_before_tuning

PAGES = Path(__file__).parents[1] / "docs" / "gpus"
FIGURES = re.compile(r"(?<=<!-- figures: )([a-z]+)((?: [a-z0-9-]+)*) -->\n(.*?)\n?<!-- end of figures -->", re.DOTALL)
MODELS = {
    "dolly-v2-3b": "EleutherAI/pythia-2.8b",
    "dolly-v1-6b": "EleutherAI/gpt-j-6B",
    "dolly-v2-7b": "EleutherAI/pythia-6.9b",
    "dolly-v2-12b": "EleutherAI/pythia-12b",
}
KINDS = {"": "all weights", "-24gb": "all weights", "-80gb": "all weights", "-lora": "LoRA", "-qlora": "QLoRA"}
"""Recipes by the ends of their names, from that which departs least from Dolly's to that which needs least."""
COUNTS = (1, 2, 4, 8)
LENGTH = 2048


@dataclass(frozen=True)
class Choice:
    """A recipe that fits so many GPUs of a kind."""

    recipe: Path
    tuned: str
    count: int


def choices(model: str, gpu: str) -> Iterator[Choice]:
    """Recipes for a model, each on as few GPUs as will do, up to the first that one GPU has room for."""
    for end, tuned in KINDS.items():
        path = RECIPES / f"{model}{end}.yaml"
        count = fewest(path, gpu) if path.exists() else None
        if count is not None and (count == 1 or end == ""):
            yield Choice(path, tuned, count)
        if count == 1:
            return


@cache
def fewest(path: Path, gpu: str) -> int | None:
    """How many GPUs it takes to run a recipe; None where eight are too few."""
    recipe = Recipe.load(path)
    run, _ = work_before_tuning(recipe, None)
    for count in COUNTS if recipe.adapter is None else (1,):
        machine = gpus_of(gpu, count)
        if plan_run(recipe, described(recipe.model).config, precision_on(recipe, machine), run, machine).fits:
            return count
    return None


@cache
def described(name: str) -> Description:
    """A model by its configuration."""
    [found] = describe([name])
    return found


def tune(*gpus: str) -> Iterator[str]:
    """What can be tuned, with which recipe, and what is predicted."""
    yield "| model | on | recipe | tuned | GiB each | tokens/s | stepping |"
    yield "|---|---|---|---|---|---|---|"
    for model in MODELS:
        for gpu in gpus:
            for choice in choices(model, gpu):
                on = GPUS[gpu].title if choice.count == 1 else f"{choice.count} × {GPUS[gpu].title}"
                memory, _, tokens, _, time = predicted(choice.recipe, Said(gpu, choice.count, "")).split()
                yield (f"| {model} | {on} | `{choice.recipe.name}` | {choice.tuned} | {memory} | {tokens} | {time} |")


def answer(*gpus: str) -> Iterator[str]:
    """How many answers a GPU has room for at once, and what bounds one."""
    yield f"| model | on | answers of {LENGTH:,} tokens at once | tokens/s of one, at most |"
    yield "|---|---|---|---|"
    for model, base in MODELS.items():
        for gpu in map(GPUS.__getitem__, gpus):
            config = described(base).config
            most = most_at_once(config, "bf16", LENGTH, gpu)
            weights = answering(config, "bf16", LENGTH, 1).weights
            limit = f"{gpu.bandwidth * COPY_REACH / weights:,.0f}" if most else "–"
            yield f"| {model} | {gpu.title} | {most or 'none'} | {limit} |"


def which(*_: str) -> Iterator[str]:
    """For every GPU and model the mildest way that one GPU has room for, and how many tune all weights by Dolly's."""
    yield f"| GPU | {' | '.join(MODELS)} |"
    yield f"|---|{'---|' * len(MODELS)}"
    for gpu in GPUS.values():
        yield f"| {gpu.title} | {' | '.join(_ways(model, gpu.name) for model in MODELS)} |"


def _ways(model: str, gpu: str) -> str:
    found = [
        choice.tuned + (f" on {choice.count}" if choice.count > 1 else "") + "¹" * choice.recipe.stem.endswith("gb")
        for choice in choices(model, gpu)
    ]
    return " or ".join(found) or "–"


def cpu(*_: str) -> Iterator[str]:
    """Memory that models need on a CPU."""
    yield "| model | answer, fp32 | answer, bf16 | tune all weights, bf16 | tune a LoRA |"
    yield "|---|---|---|---|---|"
    for name in ("base", "smollm2", *MODELS.values()):
        needs = needs_of(described(name), LENGTH, 1, "cpu")
        cells = [needs.answering["fp32"], needs.answering["bf16"], needs.tuning["bf16"], needs.tuning["lora"]]
        yield f"| `{name}` | {' | '.join(gib(cell.total) for cell in cells)} |"


MAKERS = {"tune": tune, "answer": answer, "which": which, "cpu": cpu}


def with_figures(text: str) -> str:
    """A page's text with its figures made anew."""

    def made(found: re.Match[str]) -> str:
        table = "\n".join(MAKERS[found[1]](*found[2].split()))
        return f"{found[1]}{found[2]} -->\n\n{table}\n\n<!-- end of figures -->"

    return FIGURES.sub(made, text)


if __name__ == "__main__":
    for page in sorted(PAGES.glob("*.md")):
        page.write_text(with_figures(page.read_text(encoding="utf-8")), encoding="utf-8")
