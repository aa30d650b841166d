"""Asking a model prompts whose instructions a program can check."""

from collections.abc import Callable, Sequence

from roslin.answer import Roslin
from roslin.errors import InputError
from roslin.evaluate.ifeval.prompt import OWN, CheckedPrompt
from roslin.evaluate.ifeval.report import Followed, IfevalReport
from roslin.evaluate.responses import Drawing, Progress
from roslin.evaluate.responses.judge import answer_in_parts, silent

AS_PUBLISHED = Drawing(greedy=True, max_new_tokens=1280)
"""How the LM Evaluation Harness draws the answers that it checks."""


def judge_ifeval(
    model: Roslin,
    prompts: Sequence[CheckedPrompt],
    *,
    name: str = "model",
    source: str = OWN.name,
    drawing: Drawing = AS_PUBLISHED,
    progress: Callable[[Progress], None] = silent,
) -> IfevalReport:
    """Ask `model` every prompt, as an instruction without a context, and check the answers.

    Prompts with an instruction that is not checked here, and those that the model has too few positions for, are left
    out and named in the report by their keys. Raises InputError when none is left, and MachineError when the model's
    numbers are none.
    """
    unchecked = [prompt.key for prompt in prompts if not prompt.is_checked]
    checked = [(prompt, _fits(model, prompt, drawing)) for prompt in prompts if prompt.is_checked]
    asked = [prompt for prompt, fits in checked if fits]
    too_long = [prompt.key for prompt, fits in checked if not fits]
    if not asked:
        raise InputError(
            f"None of the {len(prompts)} prompts can be asked: {len(unchecked)} have an instruction that is not "
            f"checked here, and {len(too_long)} do not fit into the model's {model.decoder.config.positions:,} "
            f"positions with {drawing.max_new_tokens:,} new tokens. Give other prompts, or ask for fewer new tokens."
        )
    answers = answer_in_parts(model, [(prompt.prompt, "") for prompt in asked], drawing, progress)
    followed = [Followed.of(prompt, answer.text) for prompt, answer in zip(asked, answers, strict=True)]
    return IfevalReport(name, source, drawing, followed, unchecked, too_long)


def _fits(model: Roslin, prompt: CheckedPrompt, drawing: Drawing) -> bool:
    length = len(model.prompts.ids(prompt.prompt, None))
    return length + drawing.max_new_tokens <= model.decoder.config.positions
